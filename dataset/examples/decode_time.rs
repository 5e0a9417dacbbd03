//! How long photographs take on one core: `decode_time SIZE ROUNDS FILES...`, one JSON object a round. `make bench-decode` compares
//! it with Pillow.

use std::path::PathBuf;
use std::time::Instant;

use fovea_dataset::{Encoded, Square};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str| {
        let text = arguments.next().ok_or_else(|| format!("give {name}"))?;
        text.parse::<u32>().map_err(|e| format!("{name}: {e}"))
    };
    let (size, rounds) = (number("SIZE")?, number("ROUNDS")?);
    let files: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let each = |begun: Instant| begun.elapsed().as_secs_f64() / files.len() as f64;
    for _ in 0..rounds {
        // Reading and checking the file, and decoding it as often as it takes to know the fundus.
        let begun = Instant::now();
        for file in &files {
            let encoded = Encoded::read(file)?;
            std::hint::black_box(encoded.decode(encoded.reduction((2 * size).max(512)))?);
        }
        let decode_s = each(begun);
        let begun = Instant::now();
        for file in &files {
            std::hint::black_box(Square::read(file, size)?);
        }
        println!(
            "{{\"size\":{size},\"decode_s\":{decode_s:.5},\"square_s\":{:.5}}}",
            each(begun)
        );
    }
    Ok(())
}
