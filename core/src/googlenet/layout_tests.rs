//! The flat layout: groups, gaps, names, refusals.

use std::collections::HashSet;

use super::*;
use crate::googlenet::{param_count, param_specs};

const FIRST_TWO: [&str; 2] = ["conv1/7x7_s2", "conv2/3x3_reduce"];
const STEM: [&str; 3] = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"];

#[test]
fn frozen_counts_are_the_published_ones() {
    let layout = FlatLayout::new(2, &FIRST_TWO).unwrap();
    assert_eq!(layout.frozen_len(), 13_632);
    assert_eq!(layout.trainable_len(), 5_975_602 - 13_632);
    let layout = FlatLayout::new(5, &STEM).unwrap();
    assert_eq!(layout.frozen_len(), 124_416);
    assert_eq!(layout.trainable_len(), 5_978_677 - 124_416);
    let layout = FlatLayout::new::<&str>(1000, &[]).unwrap();
    assert_eq!(
        (layout.frozen_len(), layout.trainable_len()),
        (0, 6_998_552)
    );
}

#[test]
fn buffers_hold_every_parameter_once_without_a_gap() {
    let layout = FlatLayout::new(5, &STEM).unwrap();
    for (entries, len) in [
        (layout.trainable(), layout.trainable_len()),
        (layout.frozen(), layout.frozen_len()),
    ] {
        let mut end = 0;
        for entry in entries {
            assert_eq!(entry.offset, end, "{}", entry.spec.name);
            end = entry.range().end;
        }
        assert_eq!(end, len);
    }
    let all: HashSet<&str> = layout
        .trainable()
        .iter()
        .chain(layout.frozen())
        .map(|e| e.spec.name.as_str())
        .collect();
    let specs = param_specs(5);
    assert_eq!(all, specs.iter().map(|p| p.name.as_str()).collect());
    assert_eq!(layout.trainable_len() + layout.frozen_len(), param_count(5));
}

#[test]
fn groups_are_contiguous_with_caffes_multipliers() {
    let layout = FlatLayout::new(2, &STEM).unwrap();
    let multipliers: Vec<_> = layout
        .groups()
        .iter()
        .map(|g| (g.lr_mult(10.0), g.decay_mult()))
        .collect();
    assert_eq!(
        multipliers,
        [(1.0, 1.0), (2.0, 0.0), (10.0, 1.0), (20.0, 0.0)]
    );
    let mut end = 0;
    for group in layout.groups() {
        assert_eq!(group.range.start, end);
        end = group.range.end;
        for entry in layout.trainable() {
            let inside = group.range.contains(&entry.offset);
            assert_eq!(
                inside,
                entry.group == Some(group.kind),
                "{}",
                entry.spec.name
            );
            assert_eq!(
                group.decay_mult() == 0.0,
                inside_is_bias(&layout, group),
                "{:?}",
                group.kind
            );
        }
    }
    assert_eq!(end, layout.trainable_len());
    assert_eq!(layout.groups()[2].range.len(), 2 * 1024);
    assert_eq!(layout.groups()[3].range.len(), 2);
}

fn inside_is_bias(layout: &FlatLayout, group: &Group) -> bool {
    layout
        .trainable()
        .iter()
        .filter(|e| group.range.contains(&e.offset))
        .all(|e| e.spec.kind == ParamKind::Bias)
}

#[test]
fn state_is_parameters_then_velocity_then_frozen() {
    let layout = FlatLayout::new(2, &FIRST_TWO).unwrap();
    let entries = layout.state_entries();
    let mut end = 0;
    for entry in &entries {
        assert_eq!(entry.offset, end, "{}", entry.name);
        assert_eq!(entry.len, entry.shape.iter().product::<usize>());
        end += entry.len;
    }
    assert_eq!(end, layout.state_len());
    assert_eq!(layout.state_len(), 2 * 5_961_970 + 13_632);
    assert_eq!(layout.params_range().end, layout.velocity_range().start);
    assert_eq!(layout.velocity_range().end, layout.frozen_range().start);
    assert_eq!(layout.frozen_range().end, layout.state_len());

    let at = |offset: usize| entries.iter().find(|e| e.offset == offset).unwrap();
    assert_eq!(at(0).name, "conv2/3x3.weight");
    assert_eq!(at(0).shape, [192, 64, 3, 3]);
    let velocity = layout.velocity_range().start;
    assert_eq!(at(velocity).name, "optimizer/velocity/conv2/3x3.weight");
    let frozen = layout.frozen_range().start;
    assert_eq!(at(frozen).name, "conv1/7x7_s2.weight");
    let names: HashSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names.len(), entries.len());
}

#[test]
fn an_unknown_layer_is_refused_with_the_nearest_names() {
    let error = FlatLayout::new(2, &["conv1/7x7s2"]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("\"conv1/7x7s2\""), "{message}");
    assert!(
        message.contains("did you mean conv1/7x7_s2 or"),
        "{message}"
    );
    assert_eq!(
        nearest_layers("inception_3a/5x5reduce")[0],
        "inception_3a/5x5_reduce"
    );
    // A layer without parameters cannot be frozen either.
    assert!(FlatLayout::new(2, &["pool1/norm1"]).is_err());
}

#[test]
fn senseless_requests_are_refused() {
    assert_eq!(FlatLayout::new(2, &[HEAD]), Err(LayoutError::FrozenHead));
    let twice = FlatLayout::new(2, &["conv2/3x3", "conv2/3x3"]);
    assert!(matches!(twice, Err(LayoutError::Repeated { .. })));
    let one = FlatLayout::new::<&str>(1, &[]);
    assert_eq!(one, Err(LayoutError::Classes { classes: 1 }));
}

#[test]
fn buckets_are_cut_at_modules_and_leave_nothing_out() {
    let frozen_4 = ["inception_4a/1x1", "inception_4b/1x1"];
    for layout in [
        FlatLayout::new(2, &STEM).unwrap(),
        FlatLayout::new(5, &frozen_4).unwrap(),
        FlatLayout::new(2, &all_but_the_head()).unwrap(),
    ] {
        let buckets = layout.buckets();
        assert_eq!(buckets[0].start, 0);
        assert_eq!(buckets[4].end, layout.trainable_len());
        for pair in buckets.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
        for entry in layout.trainable() {
            let bucket = &buckets[layout.bucket(entry)];
            let range = entry.range();
            let name = &entry.spec.name;
            assert!(
                bucket.start <= range.start && range.end <= bucket.end,
                "{name}"
            );
        }
    }
    let layout = FlatLayout::new(2, &STEM).unwrap();
    let of = |name: &str| {
        let mut entries = layout.trainable().iter();
        layout.bucket(entries.find(|entry| entry.spec.name == name).unwrap())
    };
    assert_eq!(of("inception_3b/5x5.weight"), 0);
    assert_eq!(of("inception_4b/1x1.weight"), 1);
    assert_eq!(of("inception_4e/3x3.weight"), 2);
    assert_eq!(of("inception_5a/1x1.weight"), 3);
    assert_eq!(of("inception_5b/1x1.bias"), 4);
    assert_eq!(of("loss3/classifier.weight"), 4);
    // Most gradients are complete before the backward pass begins the larger part of its work.
    let lens = layout.buckets().map(|range| range.len());
    let late = (lens[0] + lens[4]) as f64 / layout.trainable_len() as f64;
    assert!(late < 0.12, "{lens:?}");
}

fn all_but_the_head() -> Vec<String> {
    let mut names = crate::googlenet::weight_layer_names();
    names.pop();
    names
}
