//! Manifests that must be refused, each for its reason.

use super::*;
use crate::Preprocessing;
use serde_json::{Value, json};

/// A valid manifest: 3 training records in two packs, 1 validation record, 32 px.
pub(crate) fn valid() -> Manifest {
    let pack = |file: &str, split, records: u32| PackEntry {
        file: file.to_owned(),
        split,
        records,
        bytes: u64::from(records) * 3072,
        sha256: "ab".repeat(32),
    };
    let [format, layout, channels] = Manifest::constants(GradeScale::Icdr);
    let mut manifest = Manifest {
        format,
        name: DatasetName::new("tiny").expect("name"),
        image_size: 32,
        record_bytes: 3072,
        layout,
        channels,
        preprocess: Preprocess::new(&Preprocessing::default(), 32),
        scale: Some(GradeScale::Icdr),
        duplicates: Some(Duplicates {
            resaved: false,
            allowed: true,
            found: 3,
            other_patients: 2,
            sides_exact: 1,
            sides_resaved: 0,
        }),
        split: SplitOrigin::Stratified {
            seed: 7,
            validation_fraction: 0.25,
            test_fraction: 0.0,
        },
        counts: Counts {
            train: [2, 0, 1, 0, 0],
            validation: [1, 0, 0, 0, 0],
            test: [0; GRADES],
        },
        index: IndexEntry {
            file: INDEX_FILE.to_owned(),
            bytes: 100,
            sha256: "cd".repeat(32),
            rows: 4,
        },
        packs: vec![
            pack("packs/train-00000.pack", Split::Train, 2),
            pack("packs/train-00001.pack", Split::Train, 1),
            pack("packs/validation-00000.pack", Split::Validation, 1),
        ],
        excluded: 0,
        digest: String::new(),
    };
    manifest.seal().expect("seal");
    manifest
}

/// The same with a test record, of grade 3, in a pack of its own.
pub(crate) fn with_test() -> Manifest {
    let mut manifest = valid();
    manifest.counts.test[3] = 1;
    manifest.index.rows += 1;
    manifest.packs.push(PackEntry {
        file: "packs/test-00000.pack".to_owned(),
        split: Split::Test,
        ..manifest.packs[2].clone()
    });
    manifest.seal().expect("seal");
    manifest
}

/// The message for the valid manifest with `change` made and the digest made to fit.
fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::to_value(valid()).expect("value");
    change(&mut value);
    let fitting = digest(value.to_string().as_bytes()).expect("digest");
    if value
        .get("digest")
        .is_some_and(|d| d.as_str().is_some_and(|d| d.len() == 64))
    {
        value["digest"] = json!(fitting);
    }
    Manifest::parse(value.to_string().as_bytes())
        .expect_err("it was accepted")
        .to_string()
}

#[test]
fn what_is_written_is_read() {
    let mut manifest = valid();
    let bytes = manifest.seal().expect("seal");
    assert_eq!(Manifest::parse(&bytes).expect("parse"), manifest);
    // The digest does not depend on the order of the keys or on white space.
    let value: Value = serde_json::from_slice(&bytes).expect("json");
    let mut turned = serde_json::Map::new();
    for (key, value) in value.as_object().expect("object").iter().rev() {
        turned.insert(key.clone(), value.clone());
    }
    let turned = Value::Object(turned).to_string();
    assert_eq!(Manifest::parse(turned.as_bytes()).expect("parse"), manifest);
}

/// Pins the digest's definition; the expected value was computed with Python's
/// `hashlib.sha256(json.dumps(m, sort_keys=True, separators=(',', ':')).encode())`.
#[test]
fn the_digest_is_sha256_of_the_canonical_json() {
    let text = br#"{"b": [1, {"z": null, "a": "\u00e9\n\""}], "a": 0.25, "digest": "x"}"#;
    assert_eq!(
        digest(text).expect("digest"),
        crate::sha256_hex("{\"a\":0.25,\"b\":[1,{\"a\":\"é\\n\\\"\",\"z\":null}]}".as_bytes())
    );
}

#[test]
fn a_changed_manifest_is_noticed() {
    let mut value = serde_json::to_value(valid()).expect("value");
    value["packs"][0]["sha256"] = json!("ef".repeat(32));
    let error = Manifest::parse(value.to_string().as_bytes()).expect_err("changed");
    assert!(matches!(error, ManifestError::Digest { .. }), "{error}");
}

#[test]
fn impossible_values_are_refused_by_field() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 27] = [
        ("format: is \"zip\"; expected fovea-dataset-4", |m| {
            m["format"] = json!("zip")
        }),
        ("layout", |m| m["layout"] = json!("CHW")),
        ("channels", |m| m["channels"] = json!("RGB")),
        ("dataset name", |m| m["name"] = json!("../x")),
        ("image_size", |m| m["image_size"] = json!(31)),
        ("image_size", |m| m["image_size"] = json!(4_000_000_000u32)),
        ("record_bytes", |m| m["record_bytes"] = json!(3073)),
        ("split.validation_fraction", |m| {
            m["split"]["validation_fraction"] = json!(1.0)
        }),
        ("split.test_fraction", |m| {
            m["split"]["test_fraction"] = json!(0.75)
        }),
        ("split.test_fraction", |m| {
            m["split"]["test_fraction"] = json!(-0.1)
        }),
        ("packs: hold 0 test records, but counts say 1", |m| {
            m["counts"]["test"][0] = json!(1);
            m["index"]["rows"] = json!(5);
        }),
        ("unknown field `seeds`", |m| m["split"]["seeds"] = json!(1)),
        ("counts", |m| m["counts"]["train"][0] = json!(u64::MAX)),
        ("invalid length", |m| m["counts"]["train"] = json!([1, 2])),
        ("index.file", |m| m["index"]["file"] = json!("../index.csv")),
        ("index.bytes", |m| m["index"]["bytes"] = json!(u64::MAX)),
        ("index.sha256", |m| {
            m["index"]["sha256"] = json!("AB".repeat(32))
        }),
        ("packs[1].file", |m| {
            m["packs"][1]["file"] = m["packs"][0]["file"].clone()
        }),
        ("packs[0].records", |m| m["packs"][0]["records"] = json!(0)),
        ("packs[0].bytes", |m| m["packs"][0]["bytes"] = json!(1)),
        ("packs: hold 1 train", |m| {
            m["packs"][0]["split"] = json!("validation")
        }),
        ("preprocess.parameters: are not those of crop", |m| {
            m["preprocess"]["parameters"] = json!({"clip": 2.0})
        }),
        ("unknown variant `sharpen`", |m| {
            m["preprocess"]["name"] = json!("sharpen")
        }),
        ("preprocess.pipeline: is not", |m| {
            m["preprocess"]["version"] = json!(9)
        }),
        ("preprocess.crop: has more than 40 bytes", |m| {
            m["preprocess"]["crop"] = json!("x".repeat(41))
        }),
        ("digest", |m| m["digest"] = json!("short")),
        ("unknown field `extra`", |m| m["extra"] = json!(1)),
    ];
    for (expected, change) in cases {
        let message = refusal(change);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

/// A dataset of a release that knew no test part.
#[test]
fn version_1_is_read() {
    let mut value = serde_json::to_value(valid()).expect("value");
    value["format"] = json!("fovea-dataset-1");
    let field = |value: &mut Value, name: &str, of: &str| {
        value[of].as_object_mut().expect("object").remove(name);
    };
    field(&mut value, "test_fraction", "split");
    field(&mut value, "test", "counts");
    value["digest"] = json!(digest(value.to_string().as_bytes()).expect("digest"));
    let read = Manifest::parse(value.to_string().as_bytes()).expect("version 1");
    assert_eq!(
        (read.samples(Split::Train), read.samples(Split::Test)),
        (3, 0)
    );
    assert_eq!(read.split, valid().split);
}

/// Before version 3 no method is named: it was `crop`, and the pipeline is that of `crop` with the same rules.
#[test]
fn a_dataset_without_a_method_was_cropped() {
    let mut value = serde_json::to_value(valid()).expect("value");
    value["format"] = json!("fovea-dataset-2");
    for (of, name) in [
        ("preprocess", "name"),
        ("preprocess", "pipeline"),
        ("", "scale"),
        ("", "duplicates"),
    ] {
        let fields = match of {
            "" => &mut value,
            of => &mut value[of],
        };
        let removed = fields.as_object_mut().expect("object").remove(name);
        assert!(removed.is_some(), "{of} {name}");
    }
    value["digest"] = json!(digest(value.to_string().as_bytes()).expect("digest"));
    let read = Manifest::parse(value.to_string().as_bytes()).expect("version 2");
    assert_eq!(read.pipeline(), valid().pipeline());
    assert_eq!((read.scale, read.duplicates), (None, None));
    // Other rules, other pictures.
    value["preprocess"]["version"] = json!(2);
    value["digest"] = json!(digest(value.to_string().as_bytes()).expect("digest"));
    let older = Manifest::parse(value.to_string().as_bytes()).expect("older rules");
    assert_eq!(older.pipeline().steps, "crop, circle, bilinear, rules 2");
    assert_ne!(older.pipeline().digest, read.pipeline().digest);
}

/// Pins what a pipeline's digest is made of; the expected value was computed with Python's
/// `hashlib.sha256(json.dumps(p, sort_keys=True, separators=(',', ':')).encode())`.
#[test]
fn a_pipeline_has_a_digest_of_all_that_it_is() {
    let of = |text: &str, size| {
        let preprocessing: Preprocessing = text.parse().expect(text);
        Preprocess::new(&preprocessing, size).pipeline(size)
    };
    let clahe = of("clahe", 224);
    assert_eq!(
        clahe.to_string(),
        "clahe (clip 2, tiles 8), circle, bilinear, rules 3, 224 px (pipeline deea4c4886bc)"
    );
    let digests: HashSet<String> = [
        of("clahe", 224),
        of("clahe", 225),
        of("clahe:clip=3", 224),
        of("crop", 224),
        of("none", 224),
        of("ben-graham", 224),
        of("ben-graham:gain=5", 224),
    ]
    .into_iter()
    .map(|pipeline| pipeline.digest)
    .collect();
    assert_eq!(digests.len(), 7);
    assert!(clahe.continues_on(&of("clahe", 512)));
    assert!(!clahe.continues_on(&of("clahe:tiles=4", 224)));
}

/// A data folder of a later release: the version is named, not the first field that is unknown here.
#[test]
fn a_newer_version_is_refused_by_name() {
    for (format, version) in [
        ("fovea-dataset-5", 5),
        ("fovea-dataset-17", 17),
        ("fovea-dataset-99999999999999999999", u32::MAX),
    ] {
        let message = refusal(|m| {
            m["format"] = json!(format);
            m["blocks"] = json!(["a field of the future"]);
        });
        assert_eq!(
            message,
            format!(
                "manifest.json has format version {version}, and this Fovea reads versions up to 4: \
                 use a newer Fovea, or prepare the dataset again with this one"
            )
        );
    }
    for format in [
        "fovea-dataset-",
        "fovea-dataset-0",
        "fovea-dataset-01",
        "fovea-dataset--1",
        "x",
    ] {
        let message = refusal(|m| m["format"] = json!(format));
        assert!(
            message.starts_with("manifest.json: format: is "),
            "{message}"
        );
    }
}

#[test]
fn pack_names_cannot_leave_the_folder() {
    for bad in [
        "../packs/a.pack",
        "packs/../a.pack",
        "/packs/a.pack",
        "packs/a/b.pack",
        "packs/.pack",
        "packs/A.pack",
        "packs/a.pack\0",
        "a.pack",
        "packs/a.csv",
        "",
    ] {
        let message = refusal(|m| m["packs"][0]["file"] = json!(bad));
        assert!(message.contains("packs[0].file"), "{bad:?}: {message}");
    }
}

#[test]
fn bytes_that_are_no_manifest_are_refused() {
    for bad in [&b""[..], b"{}", b"[]", b"\xff", b"{\"format\":1}"] {
        assert!(matches!(Manifest::parse(bad), Err(ManifestError::Json(_))));
    }
    let deep = "[".repeat(100_000);
    assert!(Manifest::parse(deep.as_bytes()).is_err());
}
