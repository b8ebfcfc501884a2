"""`mta demo`: a drive through player, node and recorder over DDS, then numbers and pictures.

Three commands of `mta-train` run as children beside them: `synth` and `convert` draw the drive,
`eval --recorded` judges the recorded topics.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from mta_perception.atomic_files import write_atomically
from mta_perception.bags.bag_files import partial_bag
from mta_perception.bags.recording import read_recording
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.bags.shown_sentences import read_beside, truth_of_sentences
from mta_perception.commands.processes import (
    Child,
    die_with_parent,
    ended_words,
    free_domain,
    ros_environment,
)
from mta_perception.commands.summary import summarise
from mta_perception.contract import CAMERAS
from mta_perception.directory_lock import sole_writer
from mta_perception.drawing.film import film
from mta_perception.progress import Progress
from mta_perception.ros.environment import prepare
from mta_perception.ros.recorder import HEARS, HEARS_NODE, READY
from mta_perception.ros.shared_memory import remove_abandoned
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.speech import LanguageSettings, language_directory
from mta_perception.share import cache_directory, model_directory

DISCOVERY_S = 30.0
NODE_START_S = 90.0  # loading the graphs on a busy machine
SETTLE_S = 3.0  # the last captions and one more /diagnostics after the last image
DRIVE_MB_PER_S = 20  # of a synthetic bag
console = Console()


def run_demo(
    out: str | Path,
    scene: str | Path | None = None,
    seed: int = 7,
    seconds: float = 20.0,
    model: str = 'nano',
    rate: float = 1.0,
    captions: bool = True,
    language: LanguageSettings | None = None,
) -> None:
    """Everything from an empty cache to `out`/summary.json, which is written last.

    out: directory; what an earlier demo left there is replaced.  scene: a bag to play instead of a
    synthetic drive.  language: of a model that speaks with a foreign one.  Raises RuntimeError,
    OSError, ValueError.
    """
    out = Path(out).resolve()
    # What is wrong with scene or model is said before anything is removed or drawn.
    played = SceneBag(scene) if scene is not None else None
    manifest = Manifest.load(model_directory(model))
    language = language or LanguageSettings()
    if captions:
        language_directory(manifest, language.directory)
    parameters = {'captions': captions, **(language.parameters() if captions else {})}
    with sole_writer(out):
        _demonstrate(out, played, manifest.directory.resolve(), parameters, seed, seconds, rate)


def _demonstrate(
    out: Path,
    played: SceneBag | None,
    directory: Path,
    parameters: Mapping[str, object],
    seed: int,
    seconds: float,
    rate: float,
) -> None:
    """See `run_demo`; nobody else writes `out`."""
    _clear(out)
    began = time.monotonic()
    if played is None:
        played = SceneBag(synthetic_bag(seed, seconds))
    length_s = (played.end_ns - played.start_ns) / 1e9 / rate
    console.print(
        f'playing {length_s:.0f} s in real time, then about a minute of judging and film'
    )
    try:
        node = replay(played, out, directory, rate, parameters)
    finally:
        remove_abandoned()  # whichever way the three processes ended
    recording = read_recording(out / 'output_bag')
    summary = {
        **summarise(played, recording),
        **truth_of_sentences(read_beside(out / 'output_bag', recording), recording.captions),
        **_accuracy(played, out),
        'node': node,
        'scene': played.name,
        'description': played.description,
        'model': directory.name,
        'rate': rate,
    }
    with Progress('filming, pictures') as progress:
        film(played.path, out, recorded=out / 'output_bag', on_progress=progress.reached)
    summary['demo_s'] = round(time.monotonic() - began, 1)
    write_atomically(out / 'summary.json', json.dumps(summary, indent=2) + '\n')
    _print_summary(summary, out)


def _clear(out: Path) -> None:
    """Remove an earlier demo's files; refuse a directory with anything else of those names."""
    out.mkdir(parents=True, exist_ok=True)
    old = [out / 'summary.json', out / 'report' / 'metrics.json', out / 'demo.mp4']
    for path in [*old, *out.glob('frame_*.png')]:
        path.unlink(missing_ok=True)
    # The recorder of a demo that was killed may still be about to end.
    with sole_writer(out / 'output_bag', waiting=console.print):
        _remove_recorded(out / 'output_bag', out / 'logs' / 'recorder.log')


def _remove_recorded(bag: Path, log: Path) -> None:
    killed = partial_bag(bag).parent
    if killed.is_dir() and log.is_file():
        shutil.rmtree(killed)
    if bag.is_dir():
        if not (bag / 'metadata.yaml').is_file():
            raise ValueError(
                f'{bag} is no recorded bag, so `mta demo` does not '
                'replace it. Move it away or name another --out.'
            )
        shutil.rmtree(bag)


def synthetic_bag(seed: int, seconds: float) -> Path:
    """The bag of a synthetic drive, drawn once per seed, length and version of the generator."""
    version = _mta_train('synth', '--print-version', capture=True)
    folder = cache_directory('demo') / f'seed{seed}-{seconds:g}s-{version}'
    with sole_writer(folder, waiting=console.print):
        return _drawn_once(folder, seed, seconds)


def _drawn_once(folder: Path, seed: int, seconds: float) -> Path:
    found = sorted(path.parent for path in (folder / 'bags').glob('*/metadata.yaml'))
    if not found:
        console.print(
            f'drawing a synthetic drive of {seconds:g} s, once: about three minutes on a quiet '
            f'machine, {DRIVE_MB_PER_S * seconds:.0f} MB in {folder.parent} (MTA_CACHE)'
        )
        folder.mkdir(parents=True, exist_ok=True)
        _mta_train(
            'synth',
            '--out',
            folder / 'dataset',
            '--scenes',
            1,
            '--seed',
            seed,
            '--seconds',
            seconds,
        )
        _mta_train('convert', folder / 'dataset', '--out', folder / 'bags')
        found = sorted(path.parent for path in (folder / 'bags').glob('*/metadata.yaml'))
    if not found:
        raise RuntimeError(
            f'`mta-train convert` left no bag in {folder / "bags"}; remove '
            f'{folder} and run the demo again.'
        )
    if (folder / 'dataset').is_dir():
        shutil.rmtree(folder / 'dataset')  # the bag has all of it, image bytes included
    console.print(f'synthetic drive: {found[0]}')
    return found[0]


def _mta_train(
    command: str, *arguments: object, log: Path | None = None, capture: bool = False
) -> str:
    """Run `mta-train` on our terminal, or with its output in the file `log`; capture=True returns
    what it printed."""
    words = [sys.executable, '-m', 'mta_training.commands.cli', command, *map(str, arguments)]
    with open(log, 'w', encoding='utf-8') if log else nullcontext() as output:
        ended = subprocess.run(
            words,
            check=False,
            text=True,
            stdout=subprocess.PIPE if capture else output,
            stderr=subprocess.STDOUT if log else None,
            preexec_fn=die_with_parent,
        )
    if ended.returncode != 0:
        raise RuntimeError(
            f'`mta-train {" ".join(words[3:])}` {ended_words(ended.returncode)}, '
            f'see {log or "above"}.'
        )
    return (ended.stdout or '').strip()


def replay(
    scene: SceneBag,
    out: Path,
    model: Path,
    rate: float,
    parameters: Mapping[str, object] | None = None,
) -> dict[str, float | None]:
    """Recorder, node and player as processes in a DDS domain of their own; `out`/output_bag.

    parameters  of the node, by name, where they are not the defaults
    Returns what can only be seen from outside: peak memory, CPU time and exit code of the node.
    """
    prepare()
    logs = out / 'logs'
    logs.mkdir(exist_ok=True)
    # ROS keeps its own logs in the home directory otherwise, which containers may not have.
    environment = {**ros_environment(free_domain()), 'ROS_LOG_DIR': str(logs)}
    python = [sys.executable, '-m']
    record = [*python, 'mta_perception.ros.recorder', '--out', str(out / 'output_bag')]
    perceive = [
        *python,
        'mta_perception.ros.node',
        '--ros-args',
        '-p',
        'use_sim_time:=true',
        '-p',
        f'model:={model}',
    ]
    for name, value in (parameters or {}).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        perceive += ['-p', f'{name}:={text}']
    play = [*python, 'mta_perception.commands.cli', 'play', str(scene.path), '--rate', str(rate)]
    play += ['--on-enter']  # once the recorder hears the cameras: what comes before is lost
    seconds = (scene.end_ns - scene.start_ns) / 1e9 / rate
    with Child('recorder', record, logs / 'recorder.log', environment) as recorder:
        recorder.wait_for(READY, DISCOVERY_S)
        with Child('node', perceive, logs / 'node.log', environment) as node:
            node.wait_for('active', NODE_START_S)
            recorder.wait_for(HEARS_NODE, DISCOVERY_S)
            with Child('player', play, logs / 'player.log', environment) as player:
                for topic in _camera_info_topics(scene):
                    recorder.wait_for(f'{HEARS} {topic}', DISCOVERY_S)
                player.enter()
                _wait_for_end(player, (recorder, node), seconds)
            time.sleep(SETTLE_S)
            node.check()
            usage = {**process_usage(node.pid), 'exit_code': node.stop()}
        recorder.stop()
        recorder.check()
    return usage


def _camera_info_topics(scene: SceneBag) -> list[str]:
    """Those of the bag that the recorder listens to."""
    topics = [f'/{camera}/camera_info' for camera in CAMERAS]
    return [topic for topic in topics if topic in scene.topics]


def _accuracy(scene: SceneBag, out: Path) -> dict[str, Any]:
    """Official nuScenes numbers of the recorded messages against the bag's ground truth."""
    report = out / 'report'
    with Progress('judging what was recorded') as progress:
        _mta_train(
            'eval',
            '--recorded',
            out / 'output_bag',
            '--bags',
            scene.path,
            '--out',
            report,
            log=out / 'logs' / 'eval.log',
        )
        progress.update(1.0)
    judged = json.loads((report / 'metrics.json').read_text(encoding='utf-8'))
    return {
        'keyframes': judged['frames'],
        'keyframes_with_detections': judged['frames_with_detections'],
        **judged['detection'],
    }


def _wait_for_end(player: Child, others: Iterable[Child], seconds: float) -> None:
    """Until the player has ended; raises where anything fails or it takes far too long."""
    began = time.monotonic()
    with Progress('playing, perceiving, recording, seconds', round(seconds, 1)) as progress:
        while player.running():
            passed = time.monotonic() - began
            progress.update(round(min(passed, seconds), 1))
            for child in others:
                child.check()
                if not child.running():
                    raise RuntimeError(
                        f'the {child.name} process ended before the player did; see {child.log}.'
                    )
            if passed > 1.5 * seconds + NODE_START_S:
                raise RuntimeError(
                    f'the player did not end within {passed:.0f} s; see {player.log}.'
                )
            time.sleep(0.1)
    player.check()


def process_usage(pid: int) -> dict[str, float]:
    """Peak memory [MB] and CPU seconds of a running process."""
    status = Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
    peak_kb = next(
        int(line.split()[1]) for line in status.splitlines() if line.startswith('VmHWM')
    )
    fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    return {
        'peak_memory_mb': round(peak_kb / 1024, 1),
        'cpu_s': round(ticks / os.sysconf('SC_CLK_TCK'), 1),
    }


def _clock_words(clocks: Mapping[str, Mapping[str, float]]) -> str:
    """Medians in the order of the stages, as the node stamped them."""
    stages = ('complete', 'decoded', 'inferred', 'boxes', 'sentences')
    known = [f'{stage} {clocks[stage]["p50"]:.1f}' for stage in stages if stage in clocks]
    return f'{", ".join(known)} ms (p50)' if known else 'not measured'


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    table = Table(
        show_header=False,
        title=f'{summary["scene"]}: {summary["description"]}',
        title_justify='left',
    )
    dropped = ', '.join(f'{count} {reason}' for reason, count in summary['dropped'].items())
    latency = summary['latency_ms']
    for name, value in (
        (
            'frames',
            f'{summary["frames_in"]} in, {summary["frames_processed"]} processed, '
            f'dropped: {dropped or "none"}, unexplained: {summary["unexplained"]}',
        ),
        ('detections', f'{summary["detections"]} at {summary["rate_hz"]} Hz'),
        ('captions', f'{summary["captions"]}, {summary["captions_per_s"]} a second'),
        (
            'sentences',
            f'{summary["sentences_shown"]} shown, {summary["sentences_wrong"]} of them wrong; '
            f'{summary["of_these_with_true_sentence"]} of {summary["objects_within_30_m"]} '
            'objects within 30 m have a true one',
        ),
        ('latency', f'p50 {latency["p50"]} ms, p90 {latency["p90"]} ms, max {latency["max"]} ms'),
        ('after the last image', _clock_words(summary['clocks_ms'])),
        (
            'accuracy',
            f'mAP {summary["mAP"]:.3f} ({summary["mAP_present"]:.3f} over the '
            f'classes present), NDS {summary["NDS"]:.3f}',
        ),
        (
            'node',
            f'{summary["node"]["peak_memory_mb"]:.0f} MB at most, '
            f'{summary["node"]["cpu_s"]:.0f} CPU seconds',
        ),
        ('time', f'{summary["demo_s"]:.0f} s'),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(f'{out / "demo.mp4"}\n{out / "summary.json"}')
