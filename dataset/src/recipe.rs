//! From a photograph's file to the image that a network takes, as a [`Pipeline`] records it.

use fovea_core::pipeline::Pipeline;
use image::RgbImage;

use crate::decode::Encoded;
use crate::square::{Square, SquareError};
use crate::{
    Disc, MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, Method, Preprocess, Preprocessing, PreprocessingError,
    Quality,
};

/// What is done with each photograph: by the rules of this version.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    preprocessing: Preprocessing,
    size: u32,
}

/// Why a pipeline cannot be repeated here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecipeError {
    /// Its method is none that this version knows.
    #[error("its photographs were prepared as {pipeline}, which this version cannot do: {source}")]
    Method {
        /// What was done.
        pipeline: Box<Pipeline>,
        /// What is wrong with it.
        source: PreprocessingError,
    },
    /// Its size is none that can be.
    #[error(
        "its images have {size} pixels a side; {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} are possible"
    )]
    Size {
        /// The size.
        size: u32,
    },
    /// It is not what this version would do.
    #[error(
        "its photographs were prepared as {wanted}; this version would prepare them as {found}, and a model is right only for \
         photographs that were prepared as those that it learnt from: use the version that prepared them"
    )]
    Differs {
        /// What was done.
        wanted: Box<Pipeline>,
        /// What this version would do.
        found: Box<Pipeline>,
    },
    /// Another method is asked for.
    #[error(
        "its photographs were prepared as {wanted}, and --preprocess names another method or other numbers; a model is right only for \
         photographs that were prepared as those that it learnt from: leave --preprocess out"
    )]
    Named {
        /// What was done.
        wanted: Box<Pipeline>,
    },
    /// Another size is asked for.
    #[error("its images have {wanted} pixels a side, and --size names {named}: leave --size out")]
    NamedSize {
        /// The size.
        wanted: u32,
        /// What is named.
        named: u32,
    },
    /// An older version wrote no recipe, and none that is usual fits.
    #[error(
        "its photographs were prepared as {pipeline}, by a version that wrote down no recipe, and no method with its usual numbers \
         gives this pipeline: name method and numbers (--preprocess, such as clahe:clip=3,tiles=4)"
    )]
    Unwritten {
        /// What was done.
        pipeline: Box<Pipeline>,
    },
}

impl Recipe {
    /// A method with the size of the images.
    ///
    /// # Errors
    /// No image has this size.
    pub fn new(preprocessing: Preprocessing, size: u32) -> Result<Self, RecipeError> {
        match (MIN_IMAGE_SIZE..=MAX_IMAGE_SIZE).contains(&size) {
            true => Ok(Self {
                preprocessing,
                size,
            }),
            false => Err(RecipeError::Size { size }),
        }
    }

    /// The one by which `pipeline` is repeated. Where it does not name its method, `named` is tried, and without it each
    /// method with its usual numbers. Where it does, `named` must be the same.
    ///
    /// # Errors
    /// What this version would do, or what is named, has another digest.
    pub fn of(pipeline: &Pipeline, named: Option<&Preprocessing>) -> Result<Self, RecipeError> {
        let size = pipeline.size;
        let written = match &pipeline.recipe {
            Some(text) => Some(text.parse().map_err(|source| RecipeError::Method {
                pipeline: Box::new(pipeline.clone()),
                source,
            })?),
            None => None,
        };
        if let (Some(_), Some(named)) = (&written, named)
            && Self::new(named.clone(), size)?.pipeline().digest != pipeline.digest
        {
            return Err(RecipeError::Named {
                wanted: Box::new(pipeline.clone()),
            });
        }
        if let Some(preprocessing) = written.or_else(|| named.cloned()) {
            let recipe = Self::new(preprocessing, size)?;
            let found = recipe.pipeline();
            return match found.digest == pipeline.digest {
                true => Ok(recipe),
                false => Err(RecipeError::Differs {
                    wanted: Box::new(pipeline.clone()),
                    found: Box::new(found),
                }),
            };
        }
        for method in Method::ALL {
            let recipe = Self::new(method.into(), size)?;
            if recipe.pipeline().digest == pipeline.digest {
                return Ok(recipe);
            }
        }
        Err(RecipeError::Unwritten {
            pipeline: Box::new(pipeline.clone()),
        })
    }

    /// All of it with its digest.
    pub fn pipeline(&self) -> Pipeline {
        Preprocess::new(&self.preprocessing, self.size).pipeline(self.size)
    }

    /// Method and numbers.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Width and height of the images, in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The square of a photograph before its pixels are changed, with `side` pixels a side: the part of the photograph that
    /// the network is shown.
    pub fn square(&self, file: &Encoded, side: u32) -> Result<Square, SquareError> {
        Square::cut(file, self.preprocessing.method(), side)
    }

    /// The image that the network takes.
    pub fn image(&self, file: &Encoded) -> Result<Prepared, SquareError> {
        let square = self.square(file, self.size)?;
        let quality = Quality::of(&square.pixels);
        let mut pixels = square.pixels;
        self.preprocessing.apply(&mut pixels, square.disc);
        Ok(Prepared {
            record: as_record(pixels),
            disc: square.disc,
            quality,
        })
    }
}

/// A photograph, ready for the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `size` x `size` pixels: rows of pixels in the order blue, green, red.
    pub record: Vec<u8>,
    /// Where the fundus lies in it.
    pub disc: Disc,
    /// Of the square before its pixels were changed.
    pub quality: Quality,
}

/// The bytes of a record: rows of pixels in the order B, G, R.
pub(crate) fn as_record(picture: RgbImage) -> Vec<u8> {
    let mut bytes = picture.into_raw();
    for pixel in bytes.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, size: u32) -> Recipe {
        Recipe::new(text.parse().unwrap(), size).unwrap()
    }

    #[test]
    fn a_pipeline_is_rebuilt_from_what_it_says() {
        for text in [
            "none",
            "crop",
            "clahe:clip=2.7,tiles=4",
            "ben-graham:kept=0.95",
        ] {
            let recipe = of(text, 224);
            let pipeline = recipe.pipeline();
            let json = serde_json::to_string(&pipeline).unwrap();
            let read = Pipeline::from_metadata(&json).unwrap();
            assert_eq!(read, pipeline);
            assert_eq!(Recipe::of(&read, None).unwrap(), recipe, "{json}");
            // What is named must be the same.
            let same = text.parse().unwrap();
            assert_eq!(Recipe::of(&read, Some(&same)).unwrap(), recipe, "{json}");
            let other = "clahe:clip=5".parse().unwrap();
            let refused = Recipe::of(&read, Some(&other)).unwrap_err().to_string();
            assert!(refused.contains("leave --preprocess out"), "{refused}");
        }
        assert_eq!(
            of("clahe:clip=3", 64).pipeline().recipe.unwrap(),
            "clahe:clip=3,tiles=8"
        );
    }

    /// Usual numbers are found by the digest, others must be named, and what is named must fit.
    #[test]
    fn a_pipeline_of_an_older_version_has_a_digest_only() {
        let old = |recipe: &Recipe| Pipeline {
            recipe: None,
            ..recipe.pipeline()
        };
        let usual = of("ben-graham", 96);
        assert_eq!(Recipe::of(&old(&usual), None).unwrap(), usual);
        let other = of("clahe:clip=3,tiles=8", 96);
        let text = Recipe::of(&old(&other), None).unwrap_err().to_string();
        assert!(
            text.contains("clahe (clip 3, tiles 8)") && text.contains("--preprocess"),
            "{text}"
        );
        let named = "clahe:clip=3".parse().unwrap();
        assert_eq!(Recipe::of(&old(&other), Some(&named)).unwrap(), other);
        let wrong = Preprocessing::default();
        let text = Recipe::of(&old(&other), Some(&wrong))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("clip 3") && text.contains("as crop, circle"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_repeated_is_refused() {
        let mut other_rules = of("crop", 64).pipeline();
        other_rules.digest = "0".repeat(64);
        let mut unknown = of("crop", 64).pipeline();
        unknown.recipe = Some("dream".into());
        let mut small = of("crop", 64).pipeline();
        small.size = 8;
        for (pipeline, expected) in [
            (other_rules, "use the version that prepared them"),
            (unknown, "\"dream\" is none of"),
            (small, "have 8 pixels"),
        ] {
            let text = Recipe::of(&pipeline, None).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
