//! Writes the square of a photograph as each preprocessing stores it, as PNG files to look at or to compare:
//! `preprocess PHOTOGRAPH SIZE FOLDER METHODS...`, one JSON object for each.

use std::path::PathBuf;
use std::time::Instant;

use fovea_dataset::{Encoded, Preprocessing, Square};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [photograph, size, folder, methods @ ..] = arguments.as_slice() else {
        return Err("give PHOTOGRAPH SIZE FOLDER METHODS...".into());
    };
    let (size, folder) = (size.parse()?, PathBuf::from(folder));
    let file = Encoded::read(photograph.as_ref())?;
    for text in methods {
        let preprocessing: Preprocessing = text.parse()?;
        let mut square = match preprocessing.method().crops() {
            true => Square::of(&file, size)?,
            false => Square::framed(&file, size)?,
        };
        let begun = Instant::now();
        preprocessing.apply(&mut square.pixels, square.disc);
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let path = folder.join(format!("{}.png", preprocessing.method()));
        square.pixels.save(&path)?;
        let disc = square.disc;
        println!(
            "{{\"file\":{path:?},\"ms\":{ms:.2},\"x\":{},\"y\":{},\"radius\":{}}}",
            disc.x, disc.y, disc.radius
        );
    }
    Ok(())
}
