"""Vocabulary-only GGUF files: a small reader and writer for the tokenizer scripts (standard library only).

Layout: magic, u32 version, u64 tensors, u64 keys, then key/value records (llama.cpp `ggml/include/gguf.h`).
"""

import struct

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def read(path):
    """Returns {key: value}; arrays become lists."""
    data = open(path, "rb").read()
    at = 0

    def scalar(fmt):
        nonlocal at
        (value,) = struct.unpack_from(fmt, data, at)
        at += struct.calcsize(fmt)
        return value

    def string():
        nonlocal at
        length = scalar("<Q")
        at += length
        return data[at - length : at].decode("utf-8")

    def value(kind):
        if kind == STRING:
            return string()
        if kind == ARRAY:
            item, count = scalar("<I"), scalar("<Q")
            return [value(item) for _ in range(count)]
        return scalar(SCALARS[kind])

    assert data[:4] == b"GGUF", path
    at = 4
    version, _tensors, keys = scalar("<I"), scalar("<Q"), scalar("<Q")
    assert version in (2, 3), version
    pairs = {}
    for _ in range(keys):
        key = string()
        pairs[key] = value(scalar("<I"))
    return pairs


def write(path, pairs):
    """Writes `pairs` in order: str, bool, int (u32), lists of str, int (i32) and float (f32)."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)))

    def string(text):
        raw = text.encode("utf-8")
        out.extend(struct.pack("<Q", len(raw)) + raw)

    def scalar(item):
        if isinstance(item, str):
            string(item)
        elif isinstance(item, bool):
            out.extend(struct.pack("<?", item))
        elif isinstance(item, float):
            out.extend(struct.pack("<f", item))
        else:
            out.extend(struct.pack("<i", item))

    def kind(item):
        return STRING if isinstance(item, str) else BOOL if isinstance(item, bool) else F32 if isinstance(item, float) else I32

    for key, item in pairs.items():
        string(key)
        if isinstance(item, list):
            out.extend(struct.pack("<IIQ", ARRAY, kind(item[0]), len(item)))
            for element in item:
                scalar(element)
        else:
            out.extend(struct.pack("<I", U32 if kind(item) == I32 else kind(item)))
            scalar(item)
    open(path, "wb").write(out)
