"""Writers of the comparison: each runs in a process of its own, some on another interpreter."""
