//! A made-up run: five grades, two eyes a patient, and a model that sees the severity with noise. The same every time.

use fovea_core::checkpoint::Fingerprint;
use fovea_core::metrics::Evaluation;
use fovea_core::random::stream;
use fovea_core::run::EpochResult;
use fovea_core::spec::{Head, Scheme};
use fovea_evaluation::{Draws, Eye, Point, Sample, Samples, Wanted, choose, evaluate, fellow_eye};
use fovea_report::{
    Cost, Dataset, DatasetFacts, Duplicates, Judged, JudgedPart, Labels, LeakCheck, LearningRate,
    Patients, PointsFrom, Report, RunFacts, Split, TestUse, WorstError, WorstErrors,
};
use rand_chacha::rand_core::RngCore;

const CLASSES: usize = 5;
const POSITIVE: usize = 2;
/// Above which severity, a standard normal number, each grade begins; as frequent as in EyePACS.
const GRADES: [f64; 4] = [0.628, 0.860, 1.695, 2.054];
const EPOCHS: u32 = 30;
const START_MS: u64 = 1_795_770_720_000;

/// A clinic's patients, and how well the model sees them.
struct Clinic {
    seed: u64,
    patients: u32,
    /// Added to every severity: more patients are ill.
    shift: f64,
    /// Standard deviation of what the model sees, in severities.
    noise: f64,
    /// How sure the model is; what is right depends on the noise.
    slope: f64,
}

struct Random(rand_chacha::ChaCha8Rng);

impl Random {
    fn uniform(&mut self) -> f64 {
        (self.0.next_u32() as f64 + 0.5) / 4_294_967_296.0
    }

    /// Box and Muller (1958).
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

impl Clinic {
    fn samples(&self) -> Vec<Sample> {
        let mut random = Random(stream("example clinic", &[self.seed]));
        let mut out = Vec::new();
        for patient in 0..self.patients {
            let both = random.normal();
            for eye in [Eye::Left, Eye::Right] {
                let own = 0.85f64.sqrt() * both + 0.15f64.sqrt() * random.normal() + self.shift;
                let seen = own + self.noise * random.normal();
                let grade = GRADES.iter().filter(|from| own >= **from).count();
                out.push(Sample {
                    patient: format!("{}", 10_000 + 7 * patient + self.seed as u32),
                    eye: Some(eye),
                    grade: grade as u8,
                    label: grade,
                    probabilities: self.probabilities(seen),
                });
            }
        }
        out
    }

    /// Differences of a logistic curve at the limits of the grades.
    fn probabilities(&self, seen: f64) -> Vec<f32> {
        let at_least = |limit: f64| 1.0 / (1.0 + (-self.slope * (seen - limit)).exp());
        let mut limits = vec![1.0];
        limits.extend(GRADES.map(at_least));
        limits.push(0.0);
        let of = |pair: &[f64]| (pair[0] - pair[1]) as f32;
        limits.windows(2).map(of).collect()
    }
}

const VALIDATION: Clinic = Clinic {
    seed: 1,
    patients: 900,
    shift: 0.0,
    noise: 0.5,
    slope: 6.5,
};
const TEST: Clinic = Clinic {
    seed: 2,
    ..VALIDATION
};
const ELSEWHERE: Clinic = Clinic {
    seed: 3,
    patients: 874,
    shift: 0.12,
    noise: 0.72,
    slope: 6.5,
};

/// The report, without pictures.
pub fn report() -> Report {
    let draws = Draws::default();
    let [validation, test, elsewhere] = [VALIDATION, TEST, ELSEWHERE].map(|c| c.samples());
    let points = choose(&checked(&validation), Wanted::default());
    let judge = |title: &str, all: &[Sample], points_from, about: &str| {
        judged(title, all, &points, draws, points_from, about)
    };
    let on_validation = || PointsFrom::Other("Validation".into());
    let results = vec![
        judge(
            "Test",
            &test,
            on_validation(),
            "Neither the checkpoint nor a threshold was chosen on it.",
        ),
        judge(
            "Validation",
            &validation,
            PointsFrom::Same,
            "The checkpoint was chosen on it.",
        ),
        judge(
            "messidor2, all",
            &elsewhere,
            on_validation(),
            "Another data set, of other cameras and graders.",
        ),
    ];
    Report {
        run: run(),
        labels: Labels {
            classes: ["0 no DR", "1 mild", "2 moderate", "3 severe", "4 proliferative"]
                .map(String::from)
                .to_vec(),
            positive_class: POSITIVE,
            positive_from: POSITIVE as u8,
            positive: "referable DR".into(),
            head: Head::Softmax,
        },
        epochs: (0..EPOCHS).map(epoch).collect(),
        learning_rates: (0..=120)
            .map(|quarter| {
                let epochs = f64::from(quarter) / 4.0;
                let rate = 0.002 * (1.0 - epochs / f64::from(EPOCHS)).sqrt() * (epochs / 0.5).min(1.0);
                LearningRate { epochs, rate }
            })
            .collect(),
        judged: Judged {
            step: 10_192,
            epoch: Some(25),
            chosen: "highest validation AUC of 30 epochs".into(),
        },
        dataset: Dataset {
            name: "eyepacs-graded".into(),
            digest: "9b0d4fe6a1c7d3e85f2b64c09a7718dd3c5e20fb46a8917e0cd2b35f8a641e77".into(),
            facts: Some(DatasetFacts { splits: vec![
                Split {
                    name: "Training".into(),
                    by_grade: [9_234, 873, 1_892, 312, 249],
                    patients: Some(6_280),
                },
                split("Validation", &validation),
                split("Test", &test),
            ],
            preprocessing: vec![
                "Cropped to the circle of the fundus, found by its brightness; 3 % margin.".into(),
                "Scaled to 256 × 256 pixels (area mean), kept as 8-bit RGB.".into(),
                "Cut to 224 × 224, rotated by 0, 90, 180 or 270 degrees at random in training only.".into(),
                "Mean of ImageNet subtracted, channels as BGR, as the pretrained weights expect.".into(),
            ],
            scale: "International Clinical Diabetic Retinopathy scale".into(),
            leak_check: LeakCheck {
                patients: Patients::OnSeveralSides(0),
                duplicates: Some(Duplicates { exact: 0, near: Some(0), found: 2 }),
            } }),
        },
        results,
        test_uses: vec![TestUse {
            at_ms: START_MS + 9_700_000,
            by: Some("m.osei".into()),
            dataset: "eyepacs-graded".into(),
            scored: "test of eyepacs-graded".into(),
        }],
        worst_errors: Some(WorstErrors {
            part: "Test".into(),
            all: worst(&test, 4),
        }),
        warnings: vec!["This is an example: every number in it is made up by a seeded model, and no patient is in it.".into()],
        written_at_ms: START_MS + 9_900_000,
        written_by: "0.1.0 (6fe79df)".into(),
    }
}

fn run() -> RunFacts {
    RunFacts {
        id: "r-7f3k2".into(),
        name: "eyepacs-5grades-seed1".into(),
        group: None,
        submitted_at_ms: START_MS,
        submitted_by: Some("m.osei".into()),
        state: "completed".into(),
        reason: None,
        spec: "name = \"eyepacs-5grades-seed1\"\ndataset = \"eyepacs-graded\"\nseed = 1\n\n[model]\nweights = \
               \"bvlc-googlenet\"\nclasses = 5\npositive_from = 2\ndropout = 0.4\n\n[train]\nepochs = 30\nvirtual_ranks = 4\n\
               batch = 8\nlearning_rate = 0.002\npolicy = \"poly\"\npower = 0.5\nwarmup_steps = 196\nmomentum = 0.9\n\
               weight_decay = 0.0002\nhead_lr_mult = 10.0\nrotate = true\nprecision = \"bfloat16\"\nreduction = \"ordered\"\n\n\
               [checkpoint]\nbest_by = \"auc\"\n"
            .into(),
        fingerprint: Some(Fingerprint {
            device: "NVIDIA H100 80GB HBM3".into(),
            cpu: "Intel Xeon Platinum 8481C, AVX-512, AMX bf16".into(),
            libtorch: "2.11.0".into(),
            threads: 8,
            precision: "bfloat16".into(),
            fovea: "0.1.0 (6fe79df)".into(),
            kernels: String::new(),
            path: String::new(),
        }),
        cost: Cost {
            images_per_s: Some(2_417.0),
            hours: Some(1.83),
            steps: 11_760,
            workers: 2,
        },
    }
}

/// Something like what real runs do: losses part, AUC rises fast and then slowly.
fn epoch(number: u32) -> EpochResult {
    let mut random = Random(stream("example epoch", &[u64::from(number)]));
    let at = f64::from(number);
    let mut near = |value: f64, spread: f64| value + spread * random.normal();
    let rise = 1.0 - (-at / 5.0).exp();
    EpochResult {
        epoch: number,
        step: u64::from(number + 1) * 392,
        train_loss: Some(near(0.98 - 0.42 * rise - 0.007 * at, 0.004)),
        validation: Evaluation {
            samples: 1_800,
            positives: 350,
            loss: near(
                0.90 - 0.30 * rise + 0.0006 * (at - 18.0).max(0.0).powi(2),
                0.009,
            ),
            accuracy: near(0.74 + 0.06 * rise, 0.004),
            auc: Some(near(
                0.81 + 0.125 * rise - 0.0004 * (at - 25.0).abs(),
                0.002,
            )),
            sensitivity: Some(near(0.55 + 0.15 * rise, 0.01)),
            specificity: Some(near(0.93 + 0.02 * rise, 0.004)),
            quadratic_kappa: Some(near(0.42 + 0.33 * rise, 0.008)),
            confusion: vec![vec![0; CLASSES]; CLASSES],
        },
    }
}

pub fn checked(samples: &[Sample]) -> Samples {
    Samples::new(samples, Scheme::softmax(CLASSES, POSITIVE))
        .expect("made-up samples can be evaluated")
}

pub fn judged(
    title: &str,
    all: &[Sample],
    points: &[Point],
    draws: Draws,
    points_from: PointsFrom,
    about: &str,
) -> JudgedPart {
    let samples = checked(all);
    JudgedPart {
        title: title.into(),
        about: Some(about.into()),
        evaluated: evaluate(&samples, points, draws),
        fellow_eye: fellow_eye(&samples, draws),
        points_from,
    }
}

fn split(name: &str, samples: &[Sample]) -> Split {
    let mut by_grade = [0; 5];
    for sample in samples {
        by_grade[usize::from(sample.grade)] += 1;
    }
    Split {
        name: name.into(),
        by_grade,
        patients: Some(samples.len() as u64 / 2),
    }
}

/// The positive ones with the lowest P(positive), and the negative ones with the highest.
fn worst(samples: &[Sample], each: usize) -> Vec<WorstError> {
    let p = |sample: &Sample| {
        sample.probabilities[POSITIVE..]
            .iter()
            .map(|p| f64::from(*p))
            .sum::<f64>()
    };
    let mut ranked: Vec<&Sample> = samples.iter().collect();
    ranked.sort_by(|a, b| p(a).total_cmp(&p(b)));
    let missed = ranked.iter().filter(|s| s.label >= POSITIVE).take(each);
    let alarms = ranked
        .iter()
        .rev()
        .filter(|s| s.label < POSITIVE)
        .take(each);
    let notes = [Some("dark"), None, None, Some("blurred"), None];
    let error = |(number, sample): (usize, &&Sample)| {
        let best = (0..CLASSES).fold(0, |best, class| {
            if sample.probabilities[class] > sample.probabilities[best] {
                class
            } else {
                best
            }
        });
        let eye = match sample.eye {
            Some(Eye::Left) => "left",
            Some(Eye::Right) | None => "right",
        };
        WorstError {
            image: format!("{}_{eye}.jpeg", sample.patient),
            patient: sample.patient.clone(),
            grade: sample.grade,
            label: sample.label,
            predicted: best,
            p_positive: p(sample),
            quality: notes[number % notes.len()].map(String::from),
            heat_map: None,
        }
    };
    missed.chain(alarms).enumerate().map(error).collect()
}
