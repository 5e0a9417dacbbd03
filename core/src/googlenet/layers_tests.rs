//! The layer table against the published shapes and counts.

use super::*;

fn shape_of(size: usize, name: &str) -> [usize; 3] {
    let shapes = output_shapes(1000, size, size).unwrap();
    shapes.into_iter().find(|(n, _)| n == name).unwrap().1
}

#[test]
fn shapes_at_224_are_caffes() {
    let expected = [
        ("conv1/7x7_s2", [64, 112, 112]),
        ("pool1/3x3_s2", [64, 56, 56]),
        ("pool1/norm1", [64, 56, 56]),
        ("conv2/3x3_reduce", [64, 56, 56]),
        ("conv2/3x3", [192, 56, 56]),
        ("conv2/norm2", [192, 56, 56]),
        ("pool2/3x3_s2", [192, 28, 28]),
        ("inception_3a/1x1", [64, 28, 28]),
        ("inception_3a/3x3_reduce", [96, 28, 28]),
        ("inception_3a/3x3", [128, 28, 28]),
        ("inception_3a/5x5_reduce", [16, 28, 28]),
        ("inception_3a/5x5", [32, 28, 28]),
        ("inception_3a/pool", [192, 28, 28]),
        ("inception_3a/pool_proj", [32, 28, 28]),
        ("inception_3a/output", [256, 28, 28]),
        ("inception_3b/pool", [256, 28, 28]),
        ("inception_3b/output", [480, 28, 28]),
        ("pool3/3x3_s2", [480, 14, 14]),
        ("inception_4a/output", [512, 14, 14]),
        ("inception_4b/output", [512, 14, 14]),
        ("inception_4c/output", [512, 14, 14]),
        ("inception_4d/output", [528, 14, 14]),
        ("inception_4e/output", [832, 14, 14]),
        ("pool4/3x3_s2", [832, 7, 7]),
        ("inception_5a/output", [832, 7, 7]),
        ("inception_5b/output", [1024, 7, 7]),
        ("pool5/7x7_s1", [1024, 1, 1]),
        ("pool5/drop_7x7_s1", [1024, 1, 1]),
        ("loss3/classifier", [1000, 1, 1]),
    ];
    for (name, shape) in expected {
        assert_eq!(shape_of(224, name), shape, "{name}");
    }
}

#[test]
fn shapes_at_other_sizes_are_caffes() {
    let names = [
        "conv1/7x7_s2",
        "pool1/3x3_s2",
        "pool2/3x3_s2",
        "pool3/3x3_s2",
        "pool4/3x3_s2",
    ];
    let table = [
        (128, [64, 32, 16, 8, 4]),
        (224, [112, 56, 28, 14, 7]),
        (256, [128, 64, 32, 16, 8]),
        (299, [150, 75, 37, 18, 9]),
        (384, [192, 96, 48, 24, 12]),
        (448, [224, 112, 56, 28, 14]),
        (512, [256, 128, 64, 32, 16]),
        (779, [390, 195, 97, 48, 24]),
    ];
    for (size, maps) in table {
        for (name, map) in names.iter().zip(maps) {
            assert_eq!(shape_of(size, name)[1..], [map, map], "{name} at {size} px");
        }
        assert_eq!(shape_of(size, "pool5/7x7_s1"), [1024, 1, 1]);
    }
}

#[test]
fn height_and_width_are_independent() {
    let shapes = output_shapes(2, 224, 299).unwrap();
    let (_, pool4) = shapes.iter().find(|(n, _)| n == "pool4/3x3_s2").unwrap();
    assert_eq!(*pool4, [832, 7, 9]);
}

#[test]
fn too_small_an_input_names_the_layer() {
    let error = output_shapes(2, 224, 1).unwrap_err();
    assert_eq!(error.layer, "pool1/3x3_s2");
    assert!(output_shapes(2, 0, 0).is_err());
    assert!(output_shapes(2, 32, 32).is_ok());
}

#[test]
fn counts_of_layers_and_work() {
    let layers = layers(1000);
    let count = |is: fn(&Op) -> bool| layers.iter().filter(|l| is(&l.op)).count();
    assert_eq!(count(|op| matches!(op, Op::Convolution { .. })), 57);
    assert_eq!(count(|op| matches!(op, Op::InnerProduct { .. })), 1);
    assert_eq!(layers.iter().filter(|l| l.relu).count(), 57);
    assert_eq!(weight_layer_names().len(), 58);
    assert_eq!(macs(1000, 224, 224).unwrap(), 1_582_671_872);
    // With 2 classes, 998 of the head's 1000 outputs are saved.
    assert_eq!(macs(2, 224, 224).unwrap(), 1_582_671_872 - 998 * 1024);
}

#[test]
fn normalisation_stands_on_different_sides_of_the_two_poolings() {
    let layers = layers(1000);
    let bottom = |name: &str| layers.iter().find(|l| l.name == name).unwrap().bottoms[0].clone();
    assert_eq!(bottom("pool1/norm1"), "pool1/3x3_s2");
    assert_eq!(bottom("conv2/3x3_reduce"), "pool1/norm1");
    assert_eq!(bottom("conv2/norm2"), "conv2/3x3");
    assert_eq!(bottom("pool2/3x3_s2"), "conv2/norm2");
}

#[test]
fn concatenation_order_is_1x1_3x3_5x5_pool() {
    let layers = layers(1000);
    let output = layers
        .iter()
        .find(|l| l.name == "inception_4c/output")
        .unwrap();
    assert_eq!(
        output.bottoms,
        ["1x1", "3x3", "5x5", "pool_proj"].map(|part| format!("inception_4c/{part}"))
    );
}
