// Who is signed in, which page is shown, and whether the stream is open.

import { ask } from "./api.js";
import { chat, forget } from "./chat.js";
import { el, said } from "./dom.js";
import { begin, end, retrying } from "./live.js";
import { overview } from "./overview.js";
import { security } from "./security.js";

const byId = (id) => document.getElementById(id);
const main = byId("main");
let close = () => {};
let admin = false;
// How often somebody was let in, or asked to sign in: what belongs to one before shows nothing.
let entries = 0;

function route() {
  const [, page = "", id] = location.hash.split("/");
  close();
  for (const link of byId("nav").children) {
    const here = link.hash.split("/")[1] === page;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  close = (page === "chat" ? chat(main, id, admin) : page === "security" ? security(main) : overview(main, admin)) ?? (() => {});
  document.title = `${main.querySelector("h1")?.textContent ?? ""} – chatter-db`;
}

function status(text, on) {
  byId("live").textContent = text;
  byId("live").classList.toggle("on", on);
}

// Takes away the page of who was here before.
function leave() {
  close();
  close = () => {};
  removeEventListener("hashchange", route);
  main.replaceChildren();
}

async function enter(me) {
  const entry = (entries += 1);
  leave();
  if (byId("who-name").textContent !== me.user) forget();
  byId("who-name").textContent = me.user;
  admin = me.role === "admin";
  byId("nav-security").hidden = !admin;
  for (const id of ["nav", "live", "who"]) byId(id).hidden = false;
  await begin(status, lapsed, admin);
  if (entry !== entries) return;
  addEventListener("hashchange", route);
  route();
}

// The stream ends with the session. In another tab somebody else may have begun one since.
async function lapsed() {
  try {
    const me = await ask("/api/auth/me");
    if (me.user !== byId("who-name").textContent || (me.role === "admin") !== admin) enter(me);
  } catch (error) {
    if (error.status === 401) signIn("Your session has ended.");
  }
}

function signIn(why) {
  entries += 1;
  end();
  leave();
  for (const id of ["nav", "live", "who"]) byId(id).hidden = true;
  const problem = el("p", { class: "problem", role: "alert", hidden: !why }, why);
  const field = (label, name, type, autocomplete) => el("label", {}, label, el("input", { name, type, autocomplete }));
  const form = el("form", { class: "card sign-in" }, el("h1", {}, "Sign in"), problem,
    field("API key", "api_key", "password", "off"), el("hr"),
    field("User", "user", "text", "username"), field("Password", "password", "password", "current-password"),
    el("button", { class: "strong" }, "Sign in"),
    el("p", { class: "totals" }, "The first start of chatter serve prints a key of the user admin."));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
    try {
      enter(await ask("/api/auth/login", { method: "POST", body: given }));
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  });
  main.replaceChildren(form);
  form.querySelector("input").focus();
}

// By its address it would be another page.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

byId("sign-out").addEventListener("click", async () => {
  await ask("/api/auth/logout", { method: "POST" }).catch(() => {});
  location.hash = "";
  location.reload();
});

const unanswered = el("p", { class: "problem", role: "alert" });
const again = retrying(start, main);

async function start() {
  try {
    enter(await ask("/api/auth/me"));
  } catch (error) {
    if (error.status === 401) return signIn();
    said(unanswered, `The server does not answer as it should: ${error.message}`);
    if (!unanswered.isConnected) main.replaceChildren(unanswered);
    again.later(error);
  }
}

start();
