//! Tables and bits made by hand, and whole files.

use super::*;

#[test]
fn codes_of_all_lengths_are_read() {
    // One code of each length 1 to 15: 0, 10, 110, ...; and two of 16 bits.
    let mut counts = [1u8; 16];
    counts[15] = 2;
    let symbols: Vec<u8> = (0..17).collect();
    // The code of 16 ones must not be used (T.81, C.2), but is.
    let table = Huffman::new(&counts, &symbols).expect("a code");
    let text: String =
        (0..15).map(|n| "1".repeat(n) + "0").collect::<String>() + "1111111111111110";
    let bytes: Vec<u8> = text
        .as_bytes()
        .chunks(8)
        .flat_map(|bits| {
            let bits = bits.iter().fold(0u8, |byte, bit| byte << 1 | (bit - b'0'));
            if bits == 0xff {
                vec![0xff, 0]
            } else {
                vec![bits]
            }
        })
        .collect();
    let mut bits = Bits::new(&bytes, 0);
    for expected in 0..16 {
        bits.refill();
        assert_eq!(bits.symbol(&table), Ok(expected));
    }
    assert!(!bits.exhausted());
    bits.refill();
    let _ = bits.symbol(&table);
    bits.refill();
    assert!(bits.exhausted(), "there are no more bits");
}

#[test]
fn too_many_codes_are_no_table() {
    let mut counts = [0u8; 16];
    counts[0] = 3;
    assert!(Huffman::new(&counts, &[1, 2, 3]).is_none());
}

#[test]
fn a_code_that_is_not_in_the_table_is_named() {
    let mut counts = [0u8; 16];
    counts[0] = 1;
    let table = Huffman::new(&counts, &[5]).expect("a code");
    let mut bits = Bits::new(&[0x7f, 0x12, 0x34, 0x56, 0x78], 0);
    bits.refill();
    assert_eq!(bits.symbol(&table), Ok(5));
    assert_eq!(bits.symbol(&table), Err(Implausible::Code));
}
