"""How many of the near duplicates that `--mode=check` names are true, and how many known copies it finds.

    python benchmarks/near_duplicates.py
    python benchmarks/near_duplicates.py --photos=flowers --originals=600

Draws sets of pictures that have the same layout but show different things: line drawings, drawings in a frame with a
title block, pages of text, filled forms, radiographs (12 bits in PNG files of 16), icons, charts, the embedded
shapes, and pictures that differ in one thing only: a colour, a size, a number, the last line. A folder of photographs
can join them. Every set gets known copies: each change of COPIES, made to some of the originals. The check then looks
at originals and copies together, through the files that a user would have.

Prints for every set the pairs of images that share a group, how many of them are true, and the copies found; then the
share of the copies that was found by change, in the order of the sets. Files of a folder of photographs that show one
picture count as wrong pairs, so use a folder without any.
"""

import argparse
import functools
import io
import itertools
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tf_simclr.data import sources  # noqa: E402
from tf_simclr.data.quality.survey import find_duplicates, survey  # noqa: E402
from tf_simclr.data.sources import FileSource, shapes  # noqa: E402

Picture = Image.Image
_FONT = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_LETTERS = "etaoinshrdlucmfwypvbgk"


def drawing(rng: np.random.Generator) -> Picture:
    """A subject of thin strokes in the middle of a white sheet."""
    sheet = Image.new("RGB", (480, 480), "white")
    pen = ImageDraw.Draw(sheet)
    angles = np.linspace(0, 2 * np.pi, 120)
    for _ in range(rng.integers(2, 6)):
        waves = sum(rng.normal(0, 0.35 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 7))
        radius = rng.uniform(30, 150) * (1 + 0.5 * waves)
        x, y = rng.uniform(170, 310, 2)
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        part = points[: rng.integers(60, 121)]
        pen.line([tuple(point) for point in np.clip(part, 40, 440)], "black", int(rng.integers(1, 4)))
    for _ in range(rng.integers(3, 12)):
        x, y = rng.uniform(100, 380, 2)
        pen.line([(x, y), tuple(np.clip((x, y) + rng.normal(0, 50, 2), 40, 440))], "black", 2)
    return sheet


def plan(rng: np.random.Generator) -> Picture:
    """A small drawing of straight lines on a sheet with a frame and a title block, the same on all sheets."""
    sheet = Image.new("RGB", (640, 450), "white")
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((15, 15, 625, 435), outline="black", width=4)
    pen.rectangle((420, 350, 625, 435), fill=(225, 225, 225), outline="black", width=3)
    _write(pen, (430, 358), 16, "Works Ltd.\nScale 1:20")
    _write(pen, (430, 405), 14, f"No. {rng.integers(1000, 9999)}")
    left, top = rng.uniform(60, 150), rng.uniform(50, 120)
    right, bottom = left + rng.uniform(150, 300), top + rng.uniform(120, 220)
    pen.rectangle((left, top, right, bottom), outline="black", width=2)
    for _ in range(rng.integers(4, 10)):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        end = (x, rng.uniform(top, bottom)) if rng.random() < 0.5 else (rng.uniform(left, right), y)
        pen.line([(x, y), end], "black", 2)
    for _ in range(rng.integers(0, 4)):
        x, y, r = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(8, 35)
        pen.ellipse((x - r, y - r, x + r, y + r), outline="black", width=2)
    return sheet


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONT), size)


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], size: int, text: str) -> None:
    pen.text(place, text, fill=(20, 20, 20), font=_font(size))


def _words(rng: np.random.Generator, width: int) -> str:
    """Random words, as many as fit into `width` characters."""
    text = ""
    while len(text) < width - 9:
        text += "".join(rng.choice(list(_LETTERS), rng.integers(2, 10))) + " "
    return text


def page(rng: np.random.Generator) -> Picture:
    """A page of a book: every page has the same margins, lines and heading."""
    sheet = Image.new("RGB", (500, 700), (250, 248, 240))
    pen = ImageDraw.Draw(sheet)
    _write(pen, (150, 40), 18, "The Book of Pages")
    for line in range(34):
        is_last = line % 9 == 8
        _write(pen, (60, 85 + 17 * line), 12, _words(rng, int(rng.integers(15, 50)) if is_last else 62))
    return sheet


def form(rng: np.random.Generator) -> Picture:
    """A form with the same printed boxes and names, filled in by different people."""
    sheet = Image.new("RGB", (500, 700), "white")
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((40, 30, 460, 80), fill=(40, 60, 110))
    _write(pen, (60, 95), 20, "Application for a permit")
    for row in range(12):
        y = 140 + 43 * row
        pen.rectangle((40, y, 460, y + 36), outline="black", width=1)
        _write(pen, (46, y + 2), 9, f"{row + 1}. Name of the field")
        _write(pen, (60 + rng.uniform(0, 20), y + 12), 17, _words(rng, int(rng.integers(12, 34))))
    return sheet


def radiograph(rng: np.random.Generator) -> Picture:
    """A chest from the front, 12 bits in 16: all have the same organs, at places and of sizes that vary a little."""
    size = 256
    y, x = np.mgrid[0:size, 0:size] / size - 0.5

    def blob(cx: float, cy: float, rx: float, ry: float, edge: float) -> np.ndarray:
        cx, cy = cx + rng.normal(0, 0.012), cy + rng.normal(0, 0.012)
        rx, ry = rx * rng.normal(1, 0.05), ry * rng.normal(1, 0.05)
        distance = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) - 1
        return 1 / (1 + np.exp(np.clip(distance / edge, -30, 30)))

    image = 0.55 * blob(0, 0.08, 0.43, 0.55, 0.04)
    image -= 0.35 * (blob(-0.19, 0, 0.13, 0.28, 0.08) + blob(0.19, 0, 0.13, 0.28, 0.08))
    image += 0.25 * blob(0.05, 0.12, 0.13, 0.14, 0.1) + 0.2 * blob(0, 0, 0.035, 0.5, 0.2)
    phase, bend = rng.uniform(0, 1), rng.normal(2.0, 0.2)
    image += 0.05 * np.sin(2 * np.pi * (y * rng.normal(11, 0.4) + bend * x**2 * 3 + phase)) * (image > 0.1)
    for scale, strength in ((8, 0.03), (32, 0.03)):
        texture = Image.fromarray(rng.normal(0, 1, (scale, scale)).astype(np.float32))
        image += strength * np.asarray(texture.resize((size, size), 3)) * (image > 0.1)
    image += rng.normal(0, 0.006, image.shape)
    return Image.fromarray((np.clip(image + 0.05, 0, 1) * 4095).astype(np.uint16))


def icon(rng: np.random.Generator) -> Picture:
    """Flat shapes on a plain tile, or on a transparent ground."""
    image = Image.new("RGBA", (96, 96), (255, 255, 255, 0))
    pen = ImageDraw.Draw(image)
    dark, light = (40, 44, 52, 255), (250, 250, 250, 255)
    ink = dark
    if rng.random() < 0.6:
        pen.rounded_rectangle((4, 4, 92, 92), 16, fill=(*(int(level) for level in rng.integers(60, 190, 3)), 255))
        ink = light
    for _ in range(rng.integers(2, 4)):
        x, y, r = *rng.uniform(34, 62, 2), rng.uniform(8, 24)
        kind = rng.integers(0, 6)
        if kind == 0:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        elif kind == 1:
            pen.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=5)
        elif kind == 2:
            pen.rectangle((x - r, y - r / 2, x + r, y + r / 2), fill=ink)
        elif kind == 3:
            pen.regular_polygon((x, y, r), int(rng.integers(3, 7)), rng.uniform(0, 360), fill=ink)
        elif kind == 4:
            angle = rng.uniform(0, math.pi)
            dx, dy = r * math.cos(angle), r * math.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=7)
        else:
            letter = chr(rng.integers(ord("A"), ord("Z") + 1))
            pen.text((x, y), letter, fill=ink, font=_font(int(2 * r)), anchor="mm")
    return image


def chart(rng: np.random.Generator) -> Picture:
    """A plot of two curves in the same axes."""
    sheet = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(sheet)
    for level in range(6):
        pen.line((50, 40 + 42 * level, 380, 40 + 42 * level), (215, 215, 215), 1)
        _write(pen, (22, 33 + 42 * level), 11, f"{1 - level / 5:.1f}")
    pen.rectangle((50, 40, 380, 250), outline="black", width=2)
    _write(pen, (150, 12), 16, "Loss by epoch")
    x = np.linspace(0, 1, 100)
    for color in ((200, 40, 40), (40, 70, 200)):
        decay = rng.uniform(0.2, 0.9) * np.exp(-x * rng.uniform(0.5, 6)) + rng.uniform(0, 0.1)
        y = 250 - 200 * np.clip(decay + rng.normal(0, 0.02, 100), 0, 1)
        pen.line(list(zip(50 + 330 * x, y, strict=True)), color, 2)
    return sheet


def shape(rng: np.random.Generator) -> Picture:
    """An image of the embedded data set."""
    return Image.fromarray(shapes.draw(10, rng)[0][0])


def disc(rng: np.random.Generator) -> Picture:
    """A disc, the same in all images but for its colour."""
    sheet = Image.new("RGB", (128, 128), "white")
    color = tuple(int(level) for level in rng.integers(0, 220, 3))
    ImageDraw.Draw(sheet).ellipse((34, 34, 94, 94), fill=color)
    return sheet


def black_disc(rng: np.random.Generator) -> Picture:
    """A disc, the same in all images but for its size and place."""
    sheet = Image.new("RGB", (128, 128), "white")
    radius, x, y = rng.uniform(20, 40), *rng.uniform(54, 74, 2)
    ImageDraw.Draw(sheet).ellipse((x - radius, y - radius, x + radius, y + radius), fill="black")
    return sheet


def serial(rng: np.random.Generator) -> Picture:
    """A label, the same in all images but for its number."""
    sheet = Image.new("RGB", (200, 60), "white")
    _write(ImageDraw.Draw(sheet), (20, 20), 16, f"Sample no. {rng.integers(0, 100_000):05}")
    return sheet


def last_line(rng: np.random.Generator) -> Picture:
    """A page of text, the same in all images but for its last line."""
    sheet = page(np.random.default_rng(0))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((0, 85 + 17 * 33, 500, 700), fill=(250, 248, 240))
    _write(pen, (60, 85 + 17 * 33), 12, _words(rng, 62))
    return sheet


KINDS: dict[str, Callable[[np.random.Generator], Picture]] = {
    "drawings": drawing, "plans": plan, "pages": page, "forms": form, "radiographs": radiograph, "icons": icon,
    "charts": chart, "shapes": shape, "colours": disc, "sizes": black_disc, "serials": serial, "last lines": last_line,
}  # fmt: skip


def _encode(image: Picture, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _eight_bits(image: Picture) -> Picture:
    """As a program makes a small copy: colours without transparency; 12 bits of grey over the whole range of 8."""
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) / 16).astype(np.uint8))
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _scaled(image: Picture, factor: float) -> Picture:
    return image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)


def _trimmed(image: Picture, share: float) -> Picture:
    width, height = image.size
    dx, dy = max(1, round(share * width)), max(1, round(share * height))
    return image.crop((dx, dy, width - dx, height - dy))


def _marked(image: Picture) -> Picture:
    """With a small watermark in the lower right corner."""
    image = image.convert("RGB")
    width, height = image.size
    pen = ImageDraw.Draw(image)
    pen.text((0.97 * width, 0.97 * height), "sample", (128, 128, 128), _font(max(6, round(0.06 * width))), anchor="rb")
    return image


# Each makes the file of a copy.
COPIES: dict[str, Callable[[Picture], bytes]] = {
    "JPEG, quality 50": lambda image: _encode(_eight_bits(image), "JPEG", quality=50),
    "JPEG, quality 95": lambda image: _encode(_eight_bits(image), "JPEG", quality=95),
    "half the size": lambda image: _encode(_scaled(_eight_bits(image), 0.5), "PNG"),
    "1.5 times the size": lambda image: _encode(_scaled(_eight_bits(image), 1.5), "PNG"),
    "1.2 times as bright": lambda image: _encode(ImageEnhance.Brightness(_eight_bits(image)).enhance(1.2), "PNG"),
    "in grey": lambda image: _encode(_eight_bits(image).convert("L"), "PNG"),
    "GIF": lambda image: _encode(_eight_bits(image), "GIF"),
    "a small watermark": lambda image: _encode(_marked(_eight_bits(image)), "JPEG", quality=85),
    "1 % cut off at each side": lambda image: _encode(_trimmed(_eight_bits(image), 0.01), "PNG"),
    "2 % cut off at each side": lambda image: _encode(_trimmed(_eight_bits(image), 0.02), "PNG"),
    "3 % cut off at each side": lambda image: _encode(_trimmed(_eight_bits(image), 0.03), "JPEG", quality=90),
}


def make_set(originals: Sequence[Picture], num_copied: int) -> tuple[FileSource, np.ndarray]:
    """Files of pictures and of their copies.

    Args:
      originals: N pictures.
      num_copied: How many of them have a copy by each change; these are other pictures for each change while there are
        enough.

    Returns:
      (source, the original of every file int64 [N + number of changes * num_copied]).
    """
    numbers = np.arange(len(COPIES) * num_copied) % len(originals)
    changes = np.repeat(list(COPIES), num_copied)
    contents = [_encode(original, "PNG") for original in originals]
    contents += [COPIES[change](originals[number]) for change, number in zip(changes, numbers, strict=True)]
    names = [f"{number}" for number in range(len(originals))]
    names += [f"{number} {change}" for change, number in zip(changes, numbers, strict=True)]
    source = FileSource("", names, contents=np.array([*contents, b""], object)[:-1])
    return source, np.concatenate([np.arange(len(originals)), numbers])


def find_pairs(source: FileSource) -> tuple[set[tuple[int, int]], float]:
    """The pairs of images that share a group of copies, and the seconds of processor time that it took to find them."""
    start = time.process_time()
    found = find_duplicates([survey(source)])
    groups = [*found.exact, *found.near]
    pairs = {pair for group in groups for pair in itertools.combinations(group.tolist(), 2)}
    return pairs, time.process_time() - start


def read_photos(folder: str, count: int, rng: np.random.Generator) -> list[Picture]:
    source = sources.from_folder(folder)
    picked = source.subset(np.sort(rng.choice(source.num_examples, min(count, source.num_examples), replace=False)))
    return [Image.fromarray(image.numpy()) for _, _, image, _ in picked.eval_examples()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--originals", type=int, default=300, help="pictures in a set, without the copies")
    parser.add_argument("--copies", type=int, default=20, help="copies by each change")
    parser.add_argument("--photos", help="folder of photographs")
    parser.add_argument("--sets", help="names of sets, comma-separated; by default all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted = options.sets.split(",") if options.sets else [*KINDS, *(["photographs"] if options.photos else [])]
    by_change: dict[str, list[float]] = {change: [] for change in COPIES}
    print("set           files  pairs   true precision copies recall seconds")
    for name in wanted:
        rng = np.random.default_rng(options.seed)
        if name == "photographs":
            originals = read_photos(options.photos, options.originals, rng)
        else:
            originals = [KINDS[name](rng) for _ in range(options.originals)]
        source, truth = make_set(originals, options.copies)
        pairs, seconds = find_pairs(source)
        true = sum(truth[i] == truth[j] for i, j in pairs)
        is_found = np.array([(int(truth[i]), i) in pairs for i in range(len(originals), len(truth))])
        for change, rate in zip(COPIES, is_found.reshape(len(COPIES), -1).mean(axis=1), strict=True):
            by_change[change].append(rate)
        print(
            f"{name:12} {source.num_examples:6} {len(pairs):6} {true:6} {true / max(1, len(pairs)):9.3f} "
            f"{len(is_found):6} {is_found.mean():6.3f} {seconds:7.1f}",
            flush=True,
        )
    print()
    for change, rates in by_change.items():
        print(f"{change:26}" + " ".join(f"{rate:6.2f}" for rate in rates))


if __name__ == "__main__":
    main()
