//! Graphs, memory, time.
