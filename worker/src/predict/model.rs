//! A model's file as the network's state.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fovea_core::googlenet::FlatLayout;
use fovea_core::spec::RunSpec;
use fovea_dataset::{Preprocessing, Recipe, RecipeError};
use fovea_export::Model;

use super::PredictError;

/// The largest file that is read: a hundred times a checkpoint.
const MOST_BYTES: u64 = 8 << 30;

/// A model that is ready to be loaded into a device.
pub(super) struct Loaded {
    /// Of the run that trained it.
    pub spec: RunSpec,
    /// How photographs are prepared for it.
    pub recipe: Recipe,
    /// Parameters, and velocities of zero, as the device takes them.
    pub state: Vec<f32>,
    /// Of the state.
    pub layout: FlatLayout,
}

/// Reads a model. `preprocess` and `size` say how its photographs were prepared where the file does not.
pub(super) fn load(
    path: &Path,
    preprocess: Option<&Preprocessing>,
    size: Option<u32>,
) -> Result<Loaded, PredictError> {
    let io = |source| PredictError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(io(std::io::Error::other(
            "it is no model of Fovea: not a file of at most 8 GB",
        )));
    }
    let model = Model::read(&fs::read(path).map_err(io)?);
    let model = model.map_err(|source| PredictError::Model {
        path: path.to_owned(),
        source,
    })?;
    let impossible = |problem: String| PredictError::Spec {
        path: path.to_owned(),
        problem,
    };
    let mut spec = model.spec().clone();
    spec.validate().map_err(|e| impossible(e.to_string()))?;
    let recipe = recipe(path, &model, preprocess, size)?;
    // Auxiliary heads only help training, and the model has none.
    spec.model.auxiliary = 0.0;
    let layout = spec.model.layout().map_err(|e| impossible(e.to_string()))?;
    let mut state = vec![0f32; layout.state_len()];
    let places: HashMap<String, _> = layout
        .state_entries()
        .into_iter()
        .map(|entry| (entry.name, entry.offset..entry.offset + entry.len))
        .collect();
    for (parameter, values) in model.parameters() {
        let place = places.get(&parameter.name).cloned();
        let place = place.ok_or_else(|| impossible(format!("{} has no place", parameter.name)))?;
        state[place].copy_from_slice(values);
    }
    Ok(Loaded {
        spec,
        recipe,
        state,
        layout,
    })
}

fn recipe(
    path: &Path,
    model: &Model,
    preprocess: Option<&Preprocessing>,
    size: Option<u32>,
) -> Result<Recipe, PredictError> {
    let recipe = match (model.pipeline(), preprocess, size) {
        (Some(pipeline), _, Some(named)) if pipeline.size != named => Err(RecipeError::NamedSize {
            wanted: pipeline.size,
            named,
        }),
        (Some(pipeline), named, _) => Recipe::of(&pipeline, named),
        (None, Some(named), Some(size)) => Recipe::new(named.clone(), size),
        (None, ..) => {
            return Err(PredictError::NoPipeline {
                path: path.to_owned(),
            });
        }
    };
    recipe.map_err(|source| PredictError::Recipe {
        path: path.to_owned(),
        source,
    })
}
