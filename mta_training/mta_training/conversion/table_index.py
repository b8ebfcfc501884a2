"""The tables of a nuScenes dataset as an SQLite file, so that no table has to fit into memory.

v1.0-trainval has gigabytes of JSON; each table is read row by row once, and a scene then asks for
its own rows only.  The index is a by-product of one conversion, never kept.
"""

import json
from pathlib import Path
import re
import sqlite3

from mta_perception.foreign_text import first_line, shown
from mta_training.conversion.table_fields import TABLES, DatasetError, check_row

_PARENT = {
    'sample': 'scene_token',
    'sample_data': 'sample_token',
    'sample_annotation': 'sample_token',
}
_CHUNK = 1 << 22  # characters read at a time
_LONGEST_ROW = 1 << 26  # a value longer than this is damage, not data
_SPACE = re.compile(r'[ \t\r\n]*')


class _JsonStream:
    """The values of a JSON text one after the other, with one chunk of it in memory."""

    def __init__(self, file):
        self.file, self.text, self.at = file, '', 0
        self.decode = json.JSONDecoder().raw_decode

    def _more(self):
        chunk = self.file.read(_CHUNK)
        self.text, self.at = self.text[self.at :] + chunk, 0
        return bool(chunk) and len(self.text) < _LONGEST_ROW

    def sign(self, expected):
        """Step over the next character that is no space; it must be one of `expected`."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                break
            if not self._more():
                raise ValueError(f'the file ends where one of {expected} was expected')
        sign = self.text[self.at]
        if sign not in expected:
            raise ValueError(f'{sign!r} found where one of {expected} was expected')
        self.at += 1
        return sign

    def value(self):
        """The next object or string and its text."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            try:
                value, end = self.decode(self.text, self.at)
                text, self.at = self.text[self.at : end], end
                return value, text
            except json.JSONDecodeError as error:
                if not self._more():
                    raise ValueError(f'{error.msg} or the file ends early') from None
            except RecursionError:
                raise ValueError('a value is nested too deeply') from None


def stream_rows(path):
    """Yield (row, its JSON text) of a table: an array of objects.  Raises DatasetError."""
    with _opened(path) as file:
        stream = _JsonStream(file)
        try:
            stream.sign('[')
            if stream.sign('{]') == ']':
                return
            stream.at -= 1
            while True:
                yield stream.value()
                if stream.sign(',]') == ']':
                    return
        except ValueError as error:
            raise DatasetError(f'{path} is damaged: {error}. Unpack it again.') from error


def stream_items(path):
    """Yield (key, value) of a JSON file that is one object.  Raises DatasetError."""
    with _opened(path) as file:
        stream = _JsonStream(file)
        try:
            stream.sign('{')
            if stream.sign('"}') == '}':
                return
            stream.at -= 1
            while True:
                key, _ = stream.value()
                stream.sign(':')
                yield key, stream.value()[0]
                if stream.sign(',}') == '}':
                    return
        except ValueError as error:
            raise DatasetError(f'{path} is damaged: {error}. Unpack it again.') from error


def _opened(path):
    try:
        if path.exists() and not path.is_file():
            raise DatasetError(f'{path} is a folder, pipe or device, expected a table.')
        return open(path, encoding='utf-8')
    except FileNotFoundError:
        raise DatasetError(
            f'{path} is missing; a nuScenes dataset has {len(TABLES)} tables. '
            'Unpack its metadata again.'
        ) from None


def find_version(dataroot):
    """Name of the only folder with tables in a dataset.  Raises DatasetError for none or many."""
    dataroot = Path(dataroot)
    if not dataroot.is_dir():
        raise DatasetError(
            f'{dataroot} does not exist; expected the root folder of a nuScenes dataset.'
        )
    there = sorted(path.parent.name for path in dataroot.glob('*/scene.json'))
    if len(there) != 1:
        raise DatasetError(
            f'{dataroot} holds {len(there)} versions ({", ".join(there)}); choose one with '
            '--version.'
            if there
            else f'{dataroot} is no nuScenes dataset: no folder in it, such as v1.0-mini, has a '
            'scene.json.'
        )
    return there[0]


def check_tables(dataroot, version):
    """Folder of the tables; raises DatasetError unless all of them are there."""
    folder = Path(dataroot) / version
    if not folder.is_dir():
        there = sorted(path.parent.name for path in Path(dataroot).glob('*/scene.json'))
        raise DatasetError(
            f'{folder} does not exist; expected a folder with the tables of a '
            f'nuScenes dataset. Versions in {dataroot}: '
            f'{", ".join(there) or "none"}.'
        )
    missing = [name for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        raise DatasetError(
            f'{folder} lacks {", ".join(f"{name}.json" for name in missing)}; a '
            f'nuScenes dataset has {len(TABLES)} tables. Unpack its metadata '
            'again.'
        )
    return folder


def build_index(dataroot, version, path, caption_text, on_table=lambda name: None):
    """Write the index of a dataset to the new file `path`.

    caption_text  function from an entry of the TOD3Cap caption file to one sentence
    on_table      called with each table's name before it is read
    Raises DatasetError.
    """
    folder = check_tables(dataroot, version)
    database = sqlite3.connect(path)
    try:
        database.execute('PRAGMA journal_mode=OFF')
        database.execute('PRAGMA synchronous=OFF')
        for name, fields in TABLES.items():
            on_table(name)
            _fill(
                database, name, _checked_rows(folder / f'{name}.json', fields, _PARENT.get(name))
            )
        on_table('captions')
        captions = Path(dataroot) / 'captions' / 'final_caption_bbox_token.json'
        _fill(
            database,
            'caption',
            _caption_rows(captions, caption_text) if captions.is_file() else (),
        )
        database.commit()
    except UnicodeError as error:
        raise DatasetError(f'{folder}: a text in the tables is no Unicode ({error}).') from None
    except sqlite3.IntegrityError as error:
        raise DatasetError(
            f'{folder}: a token occurs twice in one table ({error}). Unpack the metadata again.'
        ) from error
    finally:
        database.close()


def scene_rows(folder):
    """All rows of the table of scenes, checked; raises DatasetError, also for a name given twice,
    because a scene becomes a folder of its name."""
    path = folder / 'scene.json'
    rows = [row for row, _ in stream_rows(path)]
    for number, row in enumerate(rows, 1):
        check_row(path, number, row, TABLES['scene'])
    names = [row['name'] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f'{path}: two scenes are called {twice[0]}; each needs its own name.')
    return rows


def _fill(database, name, rows):
    """One table of the index: rows in the order of the file, then found by token and by parent."""
    database.execute(f'CREATE TABLE {name} (token TEXT, parent TEXT, row TEXT)')
    database.executemany(f'INSERT INTO {name} VALUES (?, ?, ?)', rows)
    database.execute(f'CREATE UNIQUE INDEX {name}_token ON {name} (token)')
    if name in _PARENT:
        database.execute(f'CREATE INDEX {name}_parent ON {name} (parent)')


def _checked_rows(path, kinds, parent):
    for number, (row, text) in enumerate(stream_rows(path), 1):
        check_row(path, number, row, kinds)
        yield row['token'], row[parent] if parent else None, text


def _caption_rows(path, caption_text):
    for token, entry in stream_items(path):
        try:
            text = caption_text(entry)
            if type(text) is not str:
                raise TypeError(f'its sentence is {shown(text)}')
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f'{path}: the entry of {shown(token)} is {shown(entry)}, expected the parts of a '
                f'caption as TOD3Cap has them ({first_line(error)}). Write the file again.'
            ) from None
        yield token, None, text


class TableIndex:
    """Rows of an index by token or by what they belong to; cheap to open, one per process."""

    def __init__(self, path):
        self.database = sqlite3.connect(f'file:{path}?mode=ro', uri=True)

    def close(self):
        """Let go of the file."""
        self.database.close()

    def get(self, table, token):
        """Row of a table; DatasetError where there is none of that token."""
        found = self.database.execute(
            f'SELECT row FROM {table} WHERE token = ?', (token,)
        ).fetchone()
        if found is None:
            raise DatasetError(
                f'table {table} has no token {shown(token)}, to which another table '
                'refers. Unpack the metadata again.'
            )
        return json.loads(found[0])

    def get_all(self, table, tokens):
        """token -> row of many rows at once; DatasetError as `get`."""
        tokens, found = list(dict.fromkeys(tokens)), {}
        for start in range(0, len(tokens), 500):  # SQLite takes 999 values a statement
            part = tokens[start : start + 500]
            rows = self.database.execute(
                f'SELECT token, row FROM {table} WHERE token IN ({",".join("?" * len(part))})',
                part,
            )
            found.update((token, json.loads(text)) for token, text in rows)
        for token in tokens:
            if token not in found:
                self.get(table, token)  # says what is wrong
        return found

    def children(self, table, parent):
        """Rows of sample, sample_data or sample_annotation that belong to `parent`."""
        rows = self.database.execute(
            f'SELECT row FROM {table} WHERE parent = ? ORDER BY rowid', (parent,)
        )
        return [json.loads(text) for (text,) in rows]

    def rows(self, table):
        """All rows of a (small) table, in the order of the file."""
        return [
            json.loads(text)
            for (text,) in self.database.execute(f'SELECT row FROM {table} ORDER BY rowid')
        ]

    def caption(self, token):
        """Sentence about a sample_annotation, '' for none."""
        found = self.database.execute(
            'SELECT row FROM caption WHERE token = ?', (token,)
        ).fetchone()
        return found[0] if found else ''
