"""Compares the time that Fovea and Pillow need for photographs of 3872 x 2592 pixels, on one core, in turn.

Pillow must be installed for this Python (pip install pillow). Prints one JSON object for each size.

`decode` is reading, checking and decoding a file: by Fovea at the reduced size that the square needs, by Pillow plainly,
as most training code does it. `square` includes finding, cutting out and resizing the fundus; Pillow's cuts out the middle.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 3872, 2592


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files instead of drawn ones")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    try:
        import PIL
        from PIL import Image
    except ImportError:
        sys.exit("Pillow is not installed for this Python: pip install pillow, or PYTHON=path of one that has it")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        if arguments.photographs:
            endings = {".jpg", ".jpeg"}
            files = sorted(p for p in arguments.photographs.iterdir() if p.suffix.lower() in endings)
        else:
            files = draw(Path(folder), Image)
        for size in (224, 512):
            compare(size, files, arguments.rounds, Image, PIL.__version__)


def draw(folder, image):
    """Photographs as large as those of EyePACS, enlarged from drawings and with a sensor's noise."""
    subprocess.run(
        [ROOT / "target/release/fovea", "synthetic", "--out", folder / "s", "--patients", "4", "--size", "1024"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    files = []
    for source in sorted((folder / "s/images").iterdir()):
        photograph = image.new("RGB", (WIDTH, HEIGHT))
        disc = image.open(source).convert("RGB").resize((HEIGHT, HEIGHT), image.BICUBIC)
        noise = image.effect_noise((HEIGHT, HEIGHT), 12).convert("RGB")
        photograph.paste(image.blend(disc, noise, 0.06), ((WIDTH - HEIGHT) // 2, 0))
        files.append(folder / f"{source.stem}.jpg")
        photograph.save(files[-1], quality=92)
    return files


def compare(size, files, rounds, image, version):
    ratios = {"decode": [], "square": []}
    seconds = {"fovea": [], "pillow": []}
    for _ in range(rounds):
        output = subprocess.run(
            [ROOT / "target/release/examples/decode_time", str(size), "1", *files],
            check=True,
            capture_output=True,
            text=True,
        )
        fovea = json.loads(output.stdout)
        plain = each(files, lambda picture: picture.convert("RGB"))
        square = each(files, lambda picture: cut(picture.convert("RGB"), size, image))
        ratios["decode"].append(plain / fovea["decode_s"])
        ratios["square"].append(square / fovea["square_s"])
        seconds["fovea"].append(fovea["decode_s"])
        seconds["pillow"].append(plain)
    print(json.dumps({
        "size": size,
        "photographs": len(files),
        "pillow": version,
        "decode_s": {who: round(statistics.median(all_s), 4) for who, all_s in seconds.items()},
        "times_pillow": {what: round(statistics.median(all_r), 2) for what, all_r in ratios.items()},
        "lowest": {what: round(min(all_r), 2) for what, all_r in ratios.items()},
    }))


def each(files, use):
    from PIL import Image

    begun = time.perf_counter()
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            use(picture)
    return (time.perf_counter() - begun) / len(files)


def cut(picture, size, image):
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((size, size), image.BILINEAR)


if __name__ == "__main__":
    main()
