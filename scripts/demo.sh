#!/usr/bin/env bash
# The demo behind `make demo`: photographs -> dataset -> coordinator and two workers -> a model.
#
#   make demo                                    SYNTHETIC photographs, drawn here, from scratch
#   make demo DATA=FOLDER WEIGHTS=FILE           real ones: FOLDER has trainLabels.csv and images/,
#                                                FILE is BVLC GoogLeNet (.caffemodel or .safetensors)
# Optional: SIZE (pixels), EPOCHS, SEED, PATIENTS (synthetic), MAX_BAD (real; default 1%).
#
# All files go to demo-output/; each demo replaces those of the last one of its kind. The exit code
# is 0 only if there is a validation AUC and, on synthetic photographs, if it is at least 0.90.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HERE=$PWD
DATA=${DATA:-}
WEIGHTS=${WEIGHTS:-}
SEED=${SEED:-0}
WORKERS=2
OUT=demo-output

fail() {
  printf '\ndemo: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 2
}

heading() { printf '\n== %s\n' "$1"; }

# Makes a path of the caller absolute, because of the cd below.
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$HERE" "$1" ;; esac; }

for program in fovea fovea-coordinator fovea-worker; do
  [[ -x $ROOT/target/release/$program ]] ||
    fail "target/release/$program is not built" "make demo builds it; by hand: make build"
done

if [[ -n $DATA ]]; then
  KIND=fundus
  RUN_FILE=deploy/demo-fundus.toml
  SIZE=${SIZE:-224}
  DATA=$(absolute "$DATA")
  [[ -d $DATA ]] || fail "DATA=$DATA is not a folder"
  [[ -f $DATA/trainLabels.csv && -d $DATA/images ]] ||
    fail "DATA=$DATA does not hold trainLabels.csv and images/" \
      "trainLabels.csv has the header image,level and one row for each photograph (grades 0 to 4);" \
      "images/ holds the photographs under those names (.jpeg, .jpg, .png or .tif)."
  [[ -n $WEIGHTS ]] ||
    fail "WEIGHTS is missing: real photographs need ImageNet weights to start from" \
      "make demo DATA=... WEIGHTS=bvlc_googlenet.caffemodel" \
      "WEIGHTS=none trains from scratch, which needs many photographs."
  if [[ $WEIGHTS != none ]]; then
    WEIGHTS=$(absolute "$WEIGHTS")
    [[ -f $WEIGHTS ]] || fail "WEIGHTS=$WEIGHTS is not a file" \
      "It should be BVLC GoogLeNet as a .caffemodel or .safetensors file."
  fi
else
  KIND=synthetic
  RUN_FILE=deploy/demo-synthetic.toml
  SIZE=${SIZE:-64}
  [[ -z $WEIGHTS ]] || fail "WEIGHTS goes with DATA" \
    "make demo DATA=FOLDER WEIGHTS=FILE; without DATA the demo draws its photographs and starts from scratch."
fi

cd "$ROOT"
export PATH=$ROOT/target/release:$PATH
PHOTOGRAPHS=$OUT/synthetic-photographs
DATASET=$OUT/$KIND-dataset
CLUSTER=$OUT/$KIND-cluster
mkdir -p "$OUT"
rm -rf "$DATASET" "$CLUSTER"

if [[ $KIND == synthetic ]]; then
  heading "1/3  Drawing SYNTHETIC fundus photographs (no patient is shown)"
  rm -rf "$PHOTOGRAPHS"
  fovea synthetic --out "$PHOTOGRAPHS" --patients "${PATIENTS:-300}" --seed "$SEED"
  DATA=$PHOTOGRAPHS
  MAX_BAD=0
else
  heading "1/3  Photographs in $DATA"
  MAX_BAD=${MAX_BAD:-1%}
fi

heading "2/3  Preparing them at $SIZE px, split by patient"
fovea prepare "$DATA" --out "$DATASET" --name "$KIND-$SIZE" --size "$SIZE" --seed "$SEED" --max-bad "$MAX_BAD"

heading "3/3  Training on a coordinator and $WORKERS workers, each a process of its own"
options=(--set "seed=$SEED")
[[ -z ${EPOCHS:-} ]] || options+=(--set "train.epochs=$EPOCHS")
[[ -z $WEIGHTS || $WEIGHTS == none ]] || options+=(--set "model.weights=$WEIGHTS")
fovea local -n "$WORKERS" --dataset "$DATASET" --data-dir "$CLUSTER" "${options[@]}" "$RUN_FILE"

# The figures come from the file that the run wrote.
exec python3 - "$KIND" "$CLUSTER" <<'PYTHON'
import json, pathlib, sys

kind, cluster = sys.argv[1], pathlib.Path(sys.argv[2])
files = sorted(cluster.glob("*/metrics.json"))
if not files:
    sys.exit(f"demo: {cluster} holds no metrics.json; the run wrote no results")
metrics = json.loads(files[-1].read_text())
run, validation = metrics["run"], metrics["validation"] or {}
auc = validation.get("auc")

print("\n== Result")
if kind == "synthetic":
    print("The photographs are SYNTHETIC: drawings, not patients. The model knows nothing about real eyes.")
if auc is None:
    sys.exit("demo: there is no validation AUC: all held-out images are of one kind")
print(f"validation AUC  {auc:.4f}  on {validation['samples']} images of held-out patients, {validation['positives']} of them positive")
print(f"checkpoint      {metrics['model']}")
print(f"metrics         {files[-1]}")
weights = metrics["spec"]["model"]["weights"]
weights = f"--set model.weights={weights} " if weights else ""
print(f"""
Try next (with target/release in PATH):
  fovea local --data-dir {cluster}
      lists the runs there
  fovea local -n 2 --dataset {cluster.parent}/{kind}-dataset --data-dir {cluster} {weights}--set train.epochs=20 deploy/demo-{kind}.toml
      trains longer; Ctrl-C stops it with a checkpoint, --resume RUN continues it
  fovea --help
      prepare, submit, watch and resume with your own coordinator""")
if kind == "synthetic" and auc < 0.90:
    sys.exit(f"\ndemo: the AUC is {auc:.4f}, and at least 0.90 is expected of the synthetic photographs")
PYTHON
