//! Filters of parameters, flat gradients, and the optimizer.

use fovea_kernels::Bf16;
use fovea_kernels::cuda::weights::{
    Parameter, Sgd, Source, Tables, TablesAt, cast_filters, collect, find_bad, sgd,
};
use proptest::prelude::*;

use crate::emulator::{Memory, Random, TestNumber, assert_same, rounded, run};

/// `[out][inputs][taps]` as `[out][taps][inputs]`.
fn turned(values: &[f32], inputs: usize, taps: usize) -> Vec<f32> {
    let filter = |filter: &[f32]| -> Vec<f32> {
        let at = |i: usize| filter[i % inputs * taps + i / inputs];
        (0..filter.len()).map(at).collect()
    };
    values.chunks(inputs * taps).flat_map(filter).collect()
}

struct Flat {
    parameters: Vec<Parameter>,
    len: usize,
    filters: usize,
}

/// Parameters one after the other, of which the last has no filters, as a bias; their filters lie in another order.
fn flat(shapes: &[(usize, usize, usize)]) -> Flat {
    let mut parameters = Vec::new();
    let (mut from, mut to) = (0, 0);
    for (i, &(out, inputs, taps)) in shapes.iter().enumerate() {
        let length = out * inputs * taps;
        let has_filters = i + 1 < shapes.len();
        parameters.push(Parameter {
            from,
            length,
            to: has_filters.then_some(length),
            inputs,
            taps,
            rate: 1.0 + i as f32,
            decay: if has_filters { 1.0 } else { 0.0 },
        });
        from += length;
    }
    for parameter in parameters.iter_mut().rev() {
        if let Some(place) = &mut parameter.to {
            *place = to;
            to += parameter.length;
        }
    }
    Flat {
        parameters,
        len: from,
        filters: to,
    }
}

fn expected_filters<N: TestNumber>(flat: &Flat, params: &[f32]) -> Vec<f32> {
    let mut filters = vec![0f32; flat.filters];
    for p in &flat.parameters {
        if let Some(to) = p.to {
            let own = turned(&params[p.from..p.from + p.length], p.inputs, p.taps);
            filters[to..to + p.length].copy_from_slice(&own);
        }
    }
    filters.iter().map(|x| N::rounded(*x).to_f32()).collect()
}

fn all<N: TestNumber>(shapes: &[(usize, usize, usize)], seed: u64) {
    let mut random = Random(seed);
    let flat = flat(shapes);
    let tables = Tables::of(&flat.parameters);
    let (segments, parts) = (Memory::of(&tables.segments), Memory::of(&tables.parts));
    let at = TablesAt {
        segments: segments.at(),
        parts: parts.at(),
        count: tables.parts.len(),
    };
    let w = random.units(flat.len, 1.0);
    let v = random.units(flat.len, 0.1);
    let g = random.units(flat.len, 10.0);
    let (params, velocity, gradient) = (Memory::of(&w), Memory::of(&v), Memory::of(&g));
    let filters = Memory::<N>::unset(flat.filters);
    run::<N>(&cast_filters(at, params.at(), filters.at()));
    assert_same(
        "filters",
        &filters.wide(),
        &expected_filters::<N>(&flat, &w),
    );

    // The optimizer, from the second parameter on: its gradient begins there.
    let rest = Tables::of(&flat.parameters[1..]);
    let (segments, parts) = (Memory::of(&rest.segments), Memory::of(&rest.parts));
    let at = TablesAt {
        segments: segments.at(),
        parts: parts.at(),
        count: rest.parts.len(),
    };
    let start = flat.parameters[1].from;
    let (scale, rate, momentum, decay) = (0.125f32, 0.01f32, 0.9f32, 0.0005f32);
    let bad = Memory::of(&[1i32]);
    let own = Memory::of(&g[start..]);
    let step = Sgd {
        params: params.at(),
        velocity: velocity.at(),
        gradient: own.at(),
        start,
        filters: filters.at(),
        bad: bad.at(),
        scale,
        rate,
        momentum,
        decay,
    };
    run::<N>(&sgd(at, step));
    assert_same("a bad step changes nothing", &params.read(), &w);
    assert_same("a bad step changes nothing", &velocity.read(), &v);
    let good = Memory::of(&[0i32]);
    run::<N>(&sgd(
        at,
        Sgd {
            bad: good.at(),
            ..step
        },
    ));
    let (mut moved, mut speed) = (w.clone(), v.clone());
    for p in &flat.parameters[1..] {
        for i in p.from..p.from + p.length {
            let g = g[i] * scale + decay * p.decay * w[i];
            speed[i] = momentum * v[i] + rate * p.rate * g;
            moved[i] = w[i] - speed[i];
        }
    }
    assert_same("velocity", &velocity.read(), &speed);
    assert_same("parameters", &params.read(), &moved);
    assert_same(
        "filters",
        &filters.wide(),
        &expected_filters::<N>(&flat, &moved),
    );

    // Gradients of filters into the flat gradient: of the element, and wide; the last one is in the flat order already.
    let mut kept: (Vec<Memory<N>>, Vec<Memory<f32>>) = Default::default();
    let (mut sources, mut expected) = (Vec::new(), vec![9f32; flat.len]);
    for (i, p) in flat.parameters.iter().enumerate().skip(1) {
        let values = random.units(p.length, 1.0);
        let wide = i % 2 == 0;
        let in_order = i + 1 == flat.parameters.len();
        let (inputs, taps) = if in_order { (1, 1) } else { (p.inputs, p.taps) };
        let values = match wide {
            true => values,
            false => values.iter().map(|x| N::rounded(*x).to_f32()).collect(),
        };
        expected[p.from..p.from + p.length].copy_from_slice(&values);
        let by_filter = if in_order {
            values
        } else {
            turned(&values, inputs, taps)
        };
        let from = match wide {
            true => {
                kept.1.push(Memory::of(&by_filter));
                kept.1.last().unwrap().at()
            }
            false => {
                kept.0.push(rounded::<N>(by_filter).0);
                kept.0.last().unwrap().at()
            }
        };
        sources.push(Source {
            from,
            wide,
            to: p.from,
            length: p.length,
            inputs,
            taps,
        });
    }
    let collected = Memory::of(&vec![9f32; flat.len]);
    run::<N>(&collect(&sources, collected.at()));
    assert_same("collected", &collected.read(), &expected);
    drop(gradient);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn parameters_are_cast_moved_and_collected(
        shapes in prop::collection::vec((1usize..12, 1usize..24, prop::sample::select(vec![1usize, 9, 25])), 2..7), seed: u64,
    ) {
        all::<f32>(&shapes, seed);
        all::<Bf16>(&shapes, seed);
    }
}

#[test]
fn a_number_that_is_not_finite_is_found_anywhere() {
    for len in [1usize, 2047, 2048, 2049, 5000] {
        let bad = |values: &[f32]| {
            let (numbers, flag) = (Memory::of(values), Memory::of(&[0i32]));
            run::<f32>(&find_bad(numbers.at(), flag.at(), len));
            flag.read()[0]
        };
        let mut values = vec![f32::MAX; len];
        assert_eq!(bad(&values), 0);
        for (at, value) in [
            (0, f32::NAN),
            (len - 1, f32::INFINITY),
            (len / 2, f32::NEG_INFINITY),
        ] {
            let before = std::mem::replace(&mut values[at], value);
            assert_eq!(bad(&values), 1, "{value} at {at} of {len}");
            values[at] = before;
        }
    }
}
