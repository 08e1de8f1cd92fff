//! Any bytes as blocks of any format: decoding never fails on whole blocks, encoding only on values it names.

#![no_main]

use halfbyte_formats::{FormatError, QuantType, quant};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let ty = QuantType::ALL[usize::from(choice) % QuantType::ALL.len()];
    let blocks = bytes.len() / ty.block_bytes();
    let len = blocks * ty.block_len();
    let mut values = vec![0.0; len];
    quant::decode(ty, &bytes[..blocks * ty.block_bytes()], &mut values).expect("whole blocks decode");
    if bytes.len() % ty.block_bytes() != 0 {
        assert!(quant::decode(ty, bytes, &mut values).is_err(), "a part of a block is an error");
    }

    // The bytes as numbers, of any magnitude.
    let mut numbers: Vec<f32> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    numbers.truncate(numbers.len() / ty.block_len() * ty.block_len());
    let Ok(row_bytes) = ty.row_bytes(numbers.len()) else { return };
    let mut stored = vec![0; row_bytes];
    match quant::encode(ty, &numbers, &mut stored) {
        Ok(()) => {
            let mut back = vec![0.0; numbers.len()];
            quant::decode(ty, &stored, &mut back).expect("whole blocks decode");
            assert!(!ty.has_encoder() || back.iter().all(|v| v.is_finite()) || numbers.iter().any(|v| !v.is_finite()));
        }
        Err(FormatError::Unencodable { index, .. }) => {
            assert!(index < numbers.len() && stored.iter().all(|&byte| byte == 0));
        }
        Err(error) => assert!(!ty.has_encoder(), "{error}"),
    }
});
