//! Reads photographs by all cores, ahead of whoever scores them, and gives them out in their order.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use fovea_dataset::{DecodeError, Encoded, Found, Prepared, Recipe, Square, SquareError};
use rayon::prelude::*;

/// A photograph that was read, or why it was not.
#[derive(Debug)]
pub struct Photograph {
    /// The file, and what is known of it.
    pub found: Found,
    /// What the network takes, or why there is none.
    pub read: Result<Readable, Unreadable>,
}

/// A photograph as the network takes it, and as people see it.
#[derive(Debug)]
pub struct Readable {
    /// For the network.
    pub image: Prepared,
    /// The same part of the photograph before its pixels were changed, for a picture of the map, where that is wanted.
    pub picture: Option<Square>,
}

/// Why a photograph was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It shows no fundus that can be cut out, or cannot be read.
    #[error(transparent)]
    Square(#[from] SquareError),
    /// It could not be read when its tags were.
    #[error("{0}")]
    Tags(String),
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        Self::Square(error.into())
    }
}

/// Sides of the pictures of maps, in pixels: below it lesions cannot be seen, beyond it files are large.
const SIDES: std::ops::RangeInclusive<u32> = 448..=1024;

/// Reads the photographs in their order, on threads of its own. With `pictures`, each comes with one for its map.
///
/// At most twice as many as there are cores are held ahead. Dropping the receiver ends the reading.
pub fn read_ahead(found: Vec<Found>, recipe: Recipe, pictures: bool) -> Receiver<Photograph> {
    let at_once = 2 * rayon::current_num_threads();
    let (send, receive) = sync_channel(at_once);
    thread::spawn(move || {
        let side = recipe.size().clamp(*SIDES.start(), *SIDES.end());
        let side = pictures.then_some(side);
        let mut found = found.into_iter();
        loop {
            let some: Vec<Found> = found.by_ref().take(at_once).collect();
            if some.is_empty() {
                return;
            }
            let read: Vec<Photograph> = some
                .into_par_iter()
                .map(|found| Photograph {
                    read: read(&found, &recipe, side),
                    found,
                })
                .collect();
            for one in read {
                if send.send(one).is_err() {
                    return;
                }
            }
        }
    });
    receive
}

fn read(found: &Found, recipe: &Recipe, side: Option<u32>) -> Result<Readable, Unreadable> {
    if let Some(problem) = &found.problem {
        return Err(Unreadable::Tags(problem.clone()));
    }
    let file = Encoded::read(&found.path)?;
    let image = recipe.image(&file)?;
    let picture = match side {
        Some(side) => Some(recipe.square(&file, side)?),
        None => None,
    };
    Ok(Readable { image, picture })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fovea_dataset::photographs;
    use fovea_dataset::synthetic::{EyeSpec, render};

    use super::*;

    #[test]
    fn photographs_come_in_their_order_with_those_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        for patient in 0..9 {
            let spec = EyeSpec {
                seed: 1,
                patient,
                eye: fovea_dataset::Eye::Left,
                grade: 0,
                size: 96,
            };
            let path = folder.path().join(format!("{patient}_left.png"));
            render(&spec).save(path).unwrap();
        }
        fs::write(folder.path().join("4_left.png"), b"no picture").unwrap();
        let found = photographs(&[folder.path().into()], None).unwrap();
        let recipe = Recipe::new("crop".parse().unwrap(), 64).unwrap();
        let read: Vec<Photograph> = read_ahead(found.clone(), recipe.clone(), true)
            .into_iter()
            .collect();
        assert_eq!(read.len(), 9);
        for (at, (one, found)) in read.iter().zip(&found).enumerate() {
            assert_eq!(one.found, *found);
            match &one.read {
                Err(problem) if at == 4 => assert!(!problem.to_string().is_empty()),
                Ok(read) if at != 4 => {
                    let file = Encoded::read(&found.path).unwrap();
                    assert_eq!(read.image, recipe.image(&file).unwrap());
                    let picture = read.picture.as_ref().unwrap();
                    assert_eq!(picture.pixels.width(), 448);
                }
                other => panic!("{at}: {other:?}"),
            }
        }
        // Reading it failed when its tags were looked for, where patient and eye may stand.
        for name in ["x.png", "IM0001"] {
            std::os::unix::fs::symlink("/proc/self/mem", folder.path().join(name)).unwrap();
        }
        let all = photographs(&[folder.path().into()], None).unwrap();
        assert_eq!(all.len(), 11);
        let read = read_ahead(all, recipe.clone(), false).into_iter();
        let failed: Vec<String> = read
            .filter_map(|one| Some((one.found.shown, one.read.err()?.to_string())))
            .filter(|(_, problem)| problem.starts_with("cannot be read: "))
            .map(|(shown, _)| shown)
            .collect();
        assert_eq!(failed, ["IM0001", "x.png"]);
        // Whoever wants no more gets no more.
        drop(read_ahead(found, recipe, false));
    }
}
