"""Commands that are killed: `python kill_cases.py` imports once and forks a process for each run.

Standard input has a line of JSON a run: `arguments` of `mta-train` (or `import-small CHECKPOINT
OUT`, a BEVFormer of the tests, or `copy FROM TO`, or `resize SIZE MOUNT`), and where it is killed
with SIGKILL: `event`, the number of a call that changes a directory or opens a file to write, or
`after_s`, or neither.  The answer is a line, too: `code` (that of the process, -9 where it was
killed), `events` it came to, `said` on stderr, `seconds`.
"""

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

_CHANGES = {'os.rename', 'os.mkdir', 'os.rmdir', 'os.remove', 'os.link', 'os.truncate'}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def count_events(ends_at, counts):
    """Count into the file `counts`, one byte each; SIGKILL before event number `ends_at`."""
    done, counting = [0], [True]

    def look(event, arguments):
        changes = event in _CHANGES or (event == 'open' and arguments[2] & _WRITES)
        if not changes or not counting[0]:
            return
        done[0] += 1
        os.write(counts, b'.')
        if done[0] == ends_at:
            counting[0] = False
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def perform(arguments):
    """Run the command in this process."""
    if arguments[0] == 'copy':
        shutil.copytree(*arguments[1:])
        return
    if arguments[0] == 'resize':
        subprocess.run(['mount', '-o', f'remount,size={arguments[1]}', arguments[2]], check=True)
        return
    if arguments[0] == 'import-small':
        from small_bevformer import small_config

        from mta_training.bevformer.checkpoint import import_checkpoint

        import_checkpoint(*arguments[1:], configs=[small_config(name='small-test')])
        return
    from mta_training.commands import cli

    sys.argv = ['mta-train', *arguments]
    cli.main()


def run(order):
    """Fork, run, wait; the answer."""
    with tempfile.TemporaryFile() as counts, tempfile.TemporaryFile() as said:
        began = time.monotonic()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(said.fileno(), 2)
                count_events(order.get('event'), counts.fileno())
                perform(order['arguments'])
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        if order.get('after_s') is not None:
            time.sleep(order['after_s'])
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seconds = time.monotonic() - began
        counts.seek(0)
        said.seek(0)
        return {
            'code': code,
            'events': len(counts.read()),
            'said': said.read().decode()[-2000:],
            'seconds': seconds,
        }


def main():
    import cv2

    # What all need is imported before the first fork; torch only where it is asked for.
    import mta_training.commands.cli
    import mta_training.conversion.convert
    import mta_training.conversion.pandaset
    import mta_training.evaluation.report
    import mta_training.synth.dataset.generate

    if sys.argv[1:] == ['torch']:
        import small_bevformer  # noqa: F401

        import mta_training.export.model_directory
        import mta_training.training.bag_training  # noqa: F401
    cv2.setNumThreads(1)  # its threads would not outlive a fork
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    main()
