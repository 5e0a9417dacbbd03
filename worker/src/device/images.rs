//! Images kept as bytes in the device's memory, so that the host sends each image once.
//!
//! A GPU processes images faster than the host can read, rotate and send them. So the device keeps as many unrotated
//! images as its budget allows (35,126 images of 224 px take 5.3 GB) and rotates them in its own memory. The loader asks
//! [`HeldImages`] which images the device holds and does not read their pixels. The device drops no held image while a
//! generation runs.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor, no_grad};

use super::buffer::sent;
use super::{DeviceError, Split};
use crate::shim::check;

/// Which images a device holds. The device's thread sets the flags, and the loader reads them.
#[derive(Debug)]
pub struct HeldImages {
    train: Vec<AtomicBool>,
    validation: Vec<AtomicBool>,
}

impl HeldImages {
    fn new(train: usize, validation: usize) -> Self {
        let none = |count| (0..count).map(|_| AtomicBool::new(false)).collect();
        Self {
            train: none(train),
            validation: none(validation),
        }
    }

    /// Whether the device holds this sample, so that a batch need not contain its pixels.
    pub fn holds(&self, split: Split, sample: u32) -> bool {
        // Relaxed: only the device's thread reads the pixels, so the flag orders no other memory.
        let flag = self.flags(split).get(sample as usize);
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn set(&self, split: Split, sample: u32) {
        if let Some(flag) = self.flags(split).get(sample as usize) {
            flag.store(true, Ordering::Relaxed);
        }
    }

    fn flags(&self, split: Split) -> &[AtomicBool] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }
}

/// The images in a device's memory.
#[derive(Debug)]
pub struct ImageStore {
    device: Device,
    /// Limit of the memory's size in bytes.
    budget: u64,
    /// Width and height of the images in pixels.
    size: usize,
    /// `[capacity, size, size, 3]` bytes.
    memory: Tensor,
    /// Row of `memory` that holds each sample.
    rows: HashMap<(Split, u32), i64>,
    /// Unused rows of `memory`.
    free: Vec<i64>,
    shown: Arc<HeldImages>,
}

impl ImageStore {
    /// An empty store for at most `budget` bytes of images on `device`.
    pub fn new(device: Device, budget: u64) -> Self {
        Self {
            device,
            budget,
            size: 0,
            memory: Tensor::empty([0, 0, 0, 3], (Kind::Uint8, device)),
            rows: HashMap::new(),
            free: Vec::new(),
            shown: Arc::new(HeldImages::new(0, 0)),
        }
    }

    /// Makes room for `expected` images of `size` px, as far as the budget allows, and drops held images that are not
    /// `wanted`. `train` and `validation` are the numbers of samples of the two splits. Returns the flags of the images
    /// that are held from now on.
    pub fn prepare(
        &mut self,
        size: usize,
        [train, validation]: [usize; 2],
        expected: usize,
        wanted: impl Fn(Split, u32) -> bool,
    ) -> Arc<HeldImages> {
        if size != self.size {
            *self = Self {
                size,
                ..Self::new(self.device, self.budget)
            };
        }
        let free = &mut self.free;
        self.rows.retain(|&(split, sample), row| {
            let stays = wanted(split, sample);
            if !stays {
                free.push(*row);
            }
            stays
        });
        let record = (size * size * 3).max(1) as u64;
        let capacity = (self.budget / record).min(expected as u64) as i64;
        let before = self.memory.size()[0];
        if capacity > before {
            let side = size as i64;
            let more = [capacity - before, side, side, 3];
            let more = Tensor::empty(more, (Kind::Uint8, self.device));
            self.memory = match before {
                0 => more,
                _ => no_grad(|| Tensor::cat(&[&self.memory, &more], 0)),
            };
            // Rows are popped from the end: first the older ones, then the new ones in ascending order.
            self.free.splice(0..0, (before..capacity).rev());
        }
        self.shown = Arc::new(HeldImages::new(train, validation));
        for &(split, sample) in self.rows.keys() {
            self.shown.set(split, sample);
        }
        Arc::clone(&self.shown)
    }

    /// The unrotated images of `samples` on the device: `[samples, size, size, 3]` bytes. Arguments and errors as for
    /// [`ImageStore::locate`].
    pub fn upright(
        &mut self,
        split: Split,
        samples: &[u32],
        size: usize,
        given: &[bool],
        pixels: &[u8],
    ) -> Result<Tensor, DeviceError> {
        let Located { fresh, places } = self.locate(split, samples, size, given, pixels)?;
        let indices = |of: &[i64]| sent(of, self.device);
        no_grad(|| {
            let mut of_memory = (Vec::new(), Vec::new());
            let mut of_fresh = (Vec::new(), Vec::new());
            for (to, place) in places.iter().enumerate() {
                let place = i64::from(*place);
                let (list, place) = match place >= 0 {
                    true => (&mut of_memory, place),
                    false => (&mut of_fresh, -1 - place),
                };
                list.0.push(to as i64);
                list.1.push(place);
            }
            if of_fresh.0.is_empty() {
                return Ok(self.memory.index_select(0, &indices(&of_memory.1)));
            }
            if of_memory.0.is_empty() && of_fresh.0.len() as i64 == fresh.size()[0] {
                return Ok(fresh);
            }
            let side = size as i64;
            let shape = [samples.len() as i64, side, side, 3];
            let mut out = Tensor::empty(shape, (Kind::Uint8, self.device));
            for (source, (to, from)) in [(&self.memory, of_memory), (&fresh, of_fresh)] {
                if !to.is_empty() {
                    let rows = source.index_select(0, &indices(&from));
                    let _ = out.index_copy_(0, &indices(&to), &rows);
                }
            }
            Ok(out)
        })
    }

    /// The memory of the held images: `[capacity, size, size, 3]` bytes.
    pub fn memory(&self) -> &Tensor {
        &self.memory
    }

    /// Where the unrotated images of `samples` are on the device. `pixels` holds the images that
    /// are `given`, one after the other; the device keeps them while it has room, and has the others already.
    ///
    /// # Errors
    /// If an image is neither given nor held, if the lengths do not match, or if libtorch fails.
    pub fn locate(
        &mut self,
        split: Split,
        samples: &[u32],
        size: usize,
        given: &[bool],
        pixels: &[u8],
    ) -> Result<Located, DeviceError> {
        let came = given.iter().filter(|given| **given).count();
        let error = |reason: String| DeviceError {
            doing: "reading a batch",
            reason,
        };
        if given.len() != samples.len() || pixels.len() != came * size * size * 3 {
            return Err(error(format!(
                "{} images of {size} px, {came} of {} given, with {} bytes",
                samples.len(),
                given.len(),
                pixels.len()
            )));
        }
        let shape = [came as i64, size as i64, size as i64, 3];
        let fresh = to_device(pixels, &shape, self.device)?;
        if size != self.size {
            // The memory was prepared for another size, so it holds none of these images.
            return match came == samples.len() {
                true => Ok(Located {
                    fresh,
                    places: (0..came as i32).map(|number| -1 - number).collect(),
                }),
                false => Err(error("an image is neither given nor held".into())),
            };
        }
        let mut places = Vec::with_capacity(samples.len());
        let (mut kept, mut kept_at) = (Vec::new(), Vec::new());
        let mut numbers = 0i64..;
        for (&sample, &given) in samples.iter().zip(given) {
            // Number among the fresh images; unused for a sample that is not given.
            let number = if given {
                numbers.next().unwrap_or(0)
            } else {
                0
            };
            let row = match self.rows.get(&(split, sample)) {
                Some(row) => Some(*row),
                None if given => self.free.pop().inspect(|&row| {
                    self.rows.insert((split, sample), row);
                    self.shown.set(split, sample);
                    kept.push(number);
                    kept_at.push(row);
                }),
                None => None,
            };
            let place = match row {
                Some(row) => row,
                None if given => -1 - number,
                None => {
                    return Err(error(format!("image {sample} is neither given nor held")));
                }
            };
            places.push(i32::try_from(place).expect("there are fewer images"));
        }
        if !kept.is_empty() {
            let indices = |of: &[i64]| sent(of, self.device);
            no_grad(|| {
                let rows = fresh.index_select(0, &indices(&kept));
                let _ = self.memory.index_copy_(0, &indices(&kept_at), &rows);
            });
        }
        Ok(Located { fresh, places })
    }
}

/// Where images are.
#[derive(Debug)]
pub struct Located {
    /// Those that came with the batch: `[given, size, size, 3]` bytes.
    pub fresh: Tensor,
    /// Of each image: its row in [`ImageStore::memory`], or -1 - its number among the fresh ones.
    pub places: Vec<i32>,
}

/// Rotates each of `[images, size, size, 3]` bytes by its quarter turns, exactly as [`fovea_dataset::rotate90`] does.
pub fn turned(upright: &Tensor, quarter_turns: &[u8]) -> Tensor {
    let mut by_turns: [Vec<i64>; 4] = Default::default();
    for (at, turns) in quarter_turns.iter().enumerate() {
        by_turns[usize::from(turns % 4)].push(at as i64);
    }
    no_grad(|| {
        let mut out = upright.empty_like();
        for (turns, at) in by_turns.iter().enumerate().filter(|(_, at)| !at.is_empty()) {
            let at = sent(at, upright.device());
            let images = upright.index_select(0, &at);
            let images = images.rot90(turns as i64, [1, 2]);
            let _ = out.index_copy_(0, &at, &images);
        }
        out
    })
}

/// Copies bytes to a new tensor on `device`. A GPU copies them from pinned memory, and this thread does not wait for it.
///
/// # Errors
/// If libtorch fails, for example because the GPU has no memory left.
pub fn to_device(bytes: &[u8], shape: &[i64], device: Device) -> Result<Tensor, DeviceError> {
    let Device::Cuda(number) = device else {
        return Ok(Tensor::from_data_size(bytes, shape, Kind::Uint8));
    };
    assert_eq!(bytes.len() as i64, shape.iter().product::<i64>());
    let mut sent = std::ptr::null_mut();
    let (data, dims) = (bytes.as_ptr(), shape.len());
    // SAFETY: there are as many bytes as the shape says, and a place for the result.
    let code =
        unsafe { fovea_bytes_to_gpu(data, shape.as_ptr(), dims, number as c_int, &mut sent) };
    check("fovea_bytes_to_gpu", code).map_err(|error| DeviceError {
        doing: "sending images to the GPU",
        reason: error.to_string(),
    })?;
    // SAFETY: the shim made this tensor and passes its ownership on.
    Ok(unsafe { Tensor::from_ptr(sent.cast()) })
}

unsafe extern "C" {
    /// See `context.cpp`.
    fn fovea_bytes_to_gpu(
        bytes: *const u8,
        size: *const i64,
        dims: usize,
        device: c_int,
        result: *mut *mut c_void,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use fovea_dataset::rotate90;

    use super::*;

    const SIZE: usize = 5;
    const RECORD: usize = SIZE * SIZE * 3;

    fn image(sample: u32) -> Vec<u8> {
        let byte = |i: usize| (i * 7 + sample as usize * 31) as u8;
        (0..RECORD).map(byte).collect()
    }

    fn bytes(x: &Tensor) -> Vec<u8> {
        Vec::try_from(x.contiguous().view([-1])).unwrap()
    }

    /// Gives the images that are not held, as the loader does, and checks the result. Returns how many were given.
    fn ask(store: &mut ImageStore, held: &HeldImages, samples: &[u32]) -> usize {
        let given: Vec<bool> = samples
            .iter()
            .map(|&sample| !held.holds(Split::Train, sample))
            .collect();
        let pixels: Vec<u8> = samples
            .iter()
            .zip(&given)
            .filter(|(_, given)| **given)
            .flat_map(|(&sample, _)| image(sample))
            .collect();
        let found = store.upright(Split::Train, samples, SIZE, &given, &pixels);
        let expected: Vec<u8> = samples.iter().flat_map(|&s| image(s)).collect();
        assert_eq!(bytes(&found.unwrap()), expected, "{samples:?}");
        given.into_iter().filter(|given| *given).count()
    }

    #[test]
    fn each_image_is_given_once_as_far_as_there_is_room() {
        let mut store = ImageStore::new(Device::Cpu, 4 * RECORD as u64 + 7);
        let all = |_, _| true;
        let held = store.prepare(SIZE, [10, 0], 10, all);
        assert_eq!(ask(&mut store, &held, &[3, 1, 2]), 3);
        assert_eq!(ask(&mut store, &held, &[2, 5, 3, 6, 1]), 2);
        // Of 5 and 6, only 5 had found room.
        assert_eq!(ask(&mut store, &held, &[6, 5, 1]), 1);
        assert_eq!(ask(&mut store, &held, &[2, 3]), 0);
        // Image 2 is dropped; the next new image gets its row.
        let held = store.prepare(SIZE, [10, 0], 10, |_, sample| sample != 2);
        assert_eq!(ask(&mut store, &held, &[1, 3, 5]), 0);
        assert_eq!(ask(&mut store, &held, &[8, 2]), 2);
        assert_eq!(ask(&mut store, &held, &[2, 8]), 1);
        // The validation split has numbers of its own.
        assert!(!held.holds(Split::Validation, 1));
        // With another size nothing is held.
        let held = store.prepare(SIZE + 1, [10, 0], 10, all);
        assert!((0..10).all(|sample| !held.holds(Split::Train, sample)));
    }

    #[test]
    fn more_images_get_more_room_without_a_loss() {
        let mut store = ImageStore::new(Device::Cpu, 100 * RECORD as u64);
        let held = store.prepare(SIZE, [10, 0], 2, |_, _| true);
        ask(&mut store, &held, &[4, 5, 6]);
        let held = store.prepare(SIZE, [10, 0], 4, |_, _| true);
        assert_eq!(ask(&mut store, &held, &[4, 5]), 0);
        assert_eq!(ask(&mut store, &held, &[6, 7, 8]), 3);
        assert_eq!(ask(&mut store, &held, &[6, 7, 8, 4, 5]), 1);
    }

    #[test]
    fn an_image_that_is_neither_given_nor_held_is_an_error() {
        let mut store = ImageStore::new(Device::Cpu, 1 << 20);
        store.prepare(SIZE, [10, 0], 10, |_, _| true);
        let missing = store.upright(Split::Train, &[1], SIZE, &[false], &[]);
        let text = missing.unwrap_err().to_string();
        assert!(text.contains("image 1 is neither given nor held"), "{text}");
        let short = store.upright(Split::Train, &[1], SIZE, &[true], &[0; 7]);
        assert!(short.unwrap_err().to_string().contains("7 bytes"));
    }

    #[test]
    fn images_are_turned_as_the_loader_turns_them() {
        let turns = [1, 0, 3, 2, 1];
        let upright: Vec<u8> = (0..5).flat_map(image).collect();
        let shape = [5, SIZE as i64, SIZE as i64, 3];
        let found = turned(&to_device(&upright, &shape, Device::Cpu).unwrap(), &turns);
        let mut expected = vec![0; upright.len()];
        for ((from, to), turns) in upright
            .chunks(RECORD)
            .zip(expected.chunks_mut(RECORD))
            .zip(turns)
        {
            rotate90(from, SIZE, turns, to);
        }
        assert_eq!(bytes(&found), expected);
    }
}
