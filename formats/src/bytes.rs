//! Bounds-checked little-endian cursor.
