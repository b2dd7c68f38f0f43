"""Endings of runs: streams that are left open, or read in turn."""

import asyncio
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda

if TYPE_CHECKING:
    from tests.recorder.test_endings import Scene


async def leave_open(scene: "Scene", question: str, config: RunnableConfig | None = None) -> None:
    """Begins a stream that is not read to its end, nor closed."""
    scene.held(usage_so_far=True)
    scene.left.append(scene.model.astream(question, config))
    await anext(scene.left[0])


class LeavesOpen(BaseRetriever):
    """Asks in the task that asks it, and reads no further than the first word."""

    scene: Any

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        raise NotImplementedError

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        await leave_open(self.scene, query, {"callbacks": run_manager.get_child()})
        return []


async def stream_left_open(scene: "Scene") -> None:
    """Somebody still has what nobody reads on."""
    await LeavesOpen(scene=scene).ainvoke("Rain?", scene.config)


async def stream_left_open_by_another_task(scene: "Scene") -> None:
    async def call(question: str) -> None:
        await asyncio.create_task(leave_open(scene, question))

    await RunnableLambda(call).ainvoke("Rain?", scene.config)


async def streams_side_by_side(scene: "Scene") -> None:
    """Of one task, which awaits now one of them and now the other."""

    async def call(question: str) -> None:
        streams = [scene.model.astream(question) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        for stream in streams:
            async for _ in stream:
                pass

    await RunnableLambda(call).ainvoke("Rain?", scene.config)
