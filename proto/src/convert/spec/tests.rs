//! Specs there and back.

use super::*;

#[test]
fn a_spec_survives_the_wire_and_an_empty_one_is_the_default() {
    let empty = pb::RunSpec {
        name: "a".into(),
        dataset: "d".into(),
        ..Default::default()
    };
    let mut spec = RunSpec::try_from(empty).unwrap();
    assert_eq!(spec.train, TrainSpec::default());
    assert_eq!(spec.model, ModelSpec::default());
    spec.seed = 7;
    spec.model.init = Init::Msra;
    spec.model.frozen = vec![];
    assert_eq!(pb::ModelSpec::from(&spec.model).head, None);
    spec.model.head = Head::Ordinal;
    spec.train.rotate = false;
    spec.train.policy = Policy::Fixed;
    spec.checkpoint.every_steps = 3;
    spec.checkpoint.keep_last = 7;
    spec.checkpoint.keep_best = BestBy::Loss;
    spec.train.digest_every = 9;
    spec.train.precision = Precision::Bf16;
    spec.train.reduction = Reduction::Fast;
    spec.train.imbalance = Imbalance::Oversample;
    spec.workers.max = 1;
    spec.fold = Some(FoldSpec { index: 2, of: 5 });
    assert_eq!(RunSpec::try_from(pb::RunSpec::from(&spec)).unwrap(), spec);
}

#[test]
fn unknown_enum_values_are_named() {
    let wire = pb::RunSpec {
        name: "a".into(),
        dataset: "d".into(),
        train: Some(pb::TrainSpec {
            policy: Some(99),
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = RunSpec::try_from(wire).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.train.policy: 99 is not a known value"
    );
}
