"""Sound events: several a clip, or none, and when each is heard in a long recording.

    python examples/sound_events.py --data FSD50K                            # 200 kinds of events
    python examples/sound_events.py --data FSD50K --recording street.wav     # and what is heard when in a recording
    python examples/sound_events.py --demo                                   # no download: six synthetic events

Each class has a score of its own and a threshold tuned on validation. The demo's recording is made of test clips, one
after the other; its score says nothing about real sounds.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile
from demo_encoder import demo_encoder

import audioclf

# FSD50K's clips are long and short: batches are bounded by their seconds.
RECIPE = {"num_epochs": 20, "batch_size": 32, "max_batch_seconds": 160.0, "learning_rate": 5e-5, "max_seconds": 10.0}
DEMO = {"num_epochs": 8, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}


def write_recording(path: Path, clips: tuple[audioclf.Example, ...]) -> Path:
    """The clips one after the other, as one file."""
    sounds = [soundfile.read(clip.audio, dtype="float32") for clip in clips]
    soundfile.write(path, np.concatenate([sound for sound, _ in sounds]), sounds[0][1])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="FSD50K: its folder, as docs/corpora.md says")
    parser.add_argument("--recording", help="a file of any length, to say what is heard when")
    parser.add_argument("--model", default="ntu-spml/distilhubert", help="a short name, hub id or local folder")
    parser.add_argument("--demo", action="store_true", help="run offline on synthetic events")
    parser.add_argument("--output-dir", default="sound_events_output", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in it")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run in it")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    if options.demo and (options.data or options.recording):
        parser.error("--demo brings its own data: leave out --data and --recording.")
    run = {name: getattr(options, name) for name in ("output_dir", "overwrite", "resume", "seed")}
    recording = options.recording
    try:
        if options.demo:
            data = audioclf.load_dataset("demo", protocol="events")
            result = audioclf.train(data, model=demo_encoder(), **DEMO, **run)
            recording = write_recording(Path(options.output_dir).with_suffix(".wav"), data.test[:10])
        else:
            data = audioclf.load_dataset("fsd50k", root=options.data)
            result = audioclf.train(data, model=options.model, **RECIPE, **run)
        if recording:
            classifier = audioclf.load(result.checkpoint_dir)
            print(f"\nHeard in {recording}:")
            for segment in classifier.timeline(recording).segments:
                print(f"{segment.start:7.1f} to {segment.end:5.1f} s  {segment.label} {segment.score:.2f}")
    except audioclf.AudioclfError as error:
        print(f"sound_events.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("To go on, run it again with --resume.", file=sys.stderr)
        sys.exit(130)
    low, high = result.test_metrics["map_ci"]
    print(f"test mAP {result.test_metrics['map']:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
