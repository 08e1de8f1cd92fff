//! Says what a file is that is not GGUF: the commonest bad "models" are web pages, LFS pointers and other checkpoints.

use crate::error::Foreign;

/// How much of the file is looked at.
const WINDOW: usize = 512;

/// What `bytes`, which do not start with the GGUF magic, look like.
pub(super) fn identify(bytes: &[u8]) -> Foreign {
    let head = bytes.get(..WINDOW).unwrap_or(bytes);
    let text = head.trim_ascii_start();
    let magic = head.first_chunk().copied().unwrap_or_default();
    match magic {
        _ if head.is_empty() => Foreign::Empty,
        _ if head.iter().all(|&byte| byte == 0) => Foreign::Zeros,
        // The old magics were 32-bit numbers: 'ggml', 'ggmf', 'ggjt', 'ggla' with the bytes turned round.
        [b'l' | b'f', b'm', b'g', b'g'] | [b't', b'j', b'g', b'g'] | [b'a', b'l', b'g', b'g'] => Foreign::OldGgml,
        [b'P', b'K', 3, 4] => Foreign::Zip,
        [0x7f, b'E', b'L', b'F'] => Foreign::Elf,
        _ if is_safetensors(head) => Foreign::Safetensors,
        _ if text.starts_with(b"version https://git-lfs") => Foreign::GitLfs,
        _ if text.starts_with(b"<") => Foreign::Html,
        _ if text.starts_with(b"{") => Foreign::Json,
        _ => Foreign::Unknown { magic },
    }
}

/// A safetensors file is the length of its JSON header as 64 bits, then that header.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((len, header)) = head.split_first_chunk() else { return false };
    u64::from_le_bytes(*len) <= 100_000_000 && header.starts_with(b"{")
}
