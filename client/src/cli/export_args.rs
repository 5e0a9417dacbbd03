//! The arguments of `fovea export`.

use std::path::PathBuf;

use super::evaluate_args::WhichCheckpoint;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea export dr-1                                 writes dr-1.onnx, of the best checkpoint
  fovea export dr-1 -o dr-1.safetensors             the parameters without the optimizer's state
  fovea export runs/dr-1/model.safetensors -o dr.onnx   a file that is here; asks no coordinator

The ONNX graph (opset 13) takes photographs as they are: input `image`, float32 [batch, 3, height, width],
red, green, blue from 0 to 255. The mean is subtracted in the graph. Its outputs are `logits` and
`probabilities`, [batch, classes] (of an ordinal head one logit fewer). Height and width are 32 or more,
with pooling = \"dense\" 223 or more.

Photographs must be prepared as for training: cut to the square around the fundus, resized bilinearly to
the dataset's size, and whatever --preprocess did. `preprocessing` in the metadata names these steps, the
size and their digest, `image_size` the size alone; files of older versions lack both.

The safetensors file holds the parameters in Caffe's names and PyTorch's layout, for input in the order
blue, green, red minus (104, 117, 123). Both files carry the run's spec, the dataset's digest, the numeric
fingerprint and the names of the classes in their metadata.")]
pub struct Export {
    /// The run's id, such as dr-1, or a checkpoint's file (.safetensors)
    pub model: String,
    /// The file to write, ending in .onnx or .safetensors [default: RUN.onnx]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The checkpoint of the run: best, newest, or a step, as in `fovea evaluate` [default: best]
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<WhichCheckpoint>,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
}
