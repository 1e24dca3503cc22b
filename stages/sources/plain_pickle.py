"""A reader of pickles that builds plain values and NumPy arrays, and calls nothing.

A pickle is a program. `pickle.load` runs what it calls, and even without a call 200 bytes can take
hours or gigabytes: tuples that contain one another as keys, or an index of 2**31 for the memo. This
reader knows the opcodes that batches need, each of which takes little time, and limits their
number.

These are the opcodes with which Python 2 (protocol 2, as in the official archive) and Python 3
(protocols 3, 4 and 5) write dictionaries, lists, strings, integers and arrays of bytes. Python 3's
protocol 2 is refused: it calls a codec for every string of bytes.
"""

import pickle
from typing import NamedTuple

# The size in bytes of an opcode's argument, a number.
NUMBERS = {
    pickle.PROTO: 1,
    pickle.FRAME: 8,
    pickle.BININT1: 1,
    pickle.BININT2: 2,
    pickle.BININT: 4,
    pickle.BINPUT: 1,
    pickle.LONG_BINPUT: 4,
    pickle.BINGET: 1,
    pickle.LONG_BINGET: 4,
}
# The size in bytes of the number that precedes a string, its length.
STRINGS = {
    pickle.SHORT_BINSTRING: 1,
    pickle.BINSTRING: 4,
    pickle.SHORT_BINBYTES: 1,
    pickle.BINBYTES: 4,
    pickle.BINBYTES8: 8,
    pickle.BYTEARRAY8: 8,
    pickle.SHORT_BINUNICODE: 1,
    pickle.BINUNICODE: 4,
    pickle.BINUNICODE8: 8,
}
# How many values an opcode takes from the stack; None: those after the last mark.
TAKEN = {
    pickle.EMPTY_TUPLE: 0,
    pickle.TUPLE1: 1,
    pickle.TUPLE2: 2,
    pickle.TUPLE3: 3,
    pickle.TUPLE: None,
    pickle.APPEND: 1,
    pickle.APPENDS: None,
    pickle.SETITEM: 2,
    pickle.SETITEMS: None,
    pickle.STACK_GLOBAL: 2,
    pickle.REDUCE: 2,
    pickle.BUILD: 1,
}
CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False}


class Function(NamedTuple):
    """A function or class that a pickle names."""

    module: str
    name: str


RECONSTRUCT = Function("numpy.core.multiarray", "_reconstruct")
FROM_BUFFER = Function("numpy.core.numeric", "_frombuffer")  # in protocol 5
DTYPE = Function("numpy", "dtype")
NDARRAY = Function("numpy", "ndarray")  # an argument of RECONSTRUCT


class Dtype:
    """A pickled `numpy.dtype`: its type code, unchecked. Byte order does not matter to bytes."""

    def __init__(self, code: object) -> None:
        self.code = code


class Array:
    """A pickled NumPy array: (version, shape, `Dtype`, column by column?, content), unchecked."""

    def __init__(self, *state: object) -> None:
        self.state: object = state


def function(module: object, name: object) -> Function:
    """A function that arrays need, with the name that its module had before NumPy 2.

    Raises `ValueError` for all others.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("it makes a call that is not allowed in a data set")
    named = Function(module.replace("numpy._core.", "numpy.core."), name)
    if named == ("_codecs", "encode"):
        raise ValueError("Python 3 wrote it in pickle's protocol 2; use protocol 3, 4 or 5")
    if named not in (RECONSTRUCT, FROM_BUFFER, DTYPE, NDARRAY):
        raise ValueError(f"it calls {module}.{name}, which is not allowed in a data set")
    return named


def call(called: object, arguments: object) -> Array | Dtype:
    """What the call of a `Function` would return; raises `ValueError` for all other calls."""
    match called, arguments:
        case Function(), tuple() if called == RECONSTRUCT:
            return Array()
        case Function(), (data, Dtype() as dtype, shape, order) if called == FROM_BUFFER:
            return Array(1, shape, dtype, order == "F", data)
        case Function(), (code, *_) if called == DTYPE:
            return Dtype(code)
    raise ValueError("it makes a call that is not allowed in a data set")


def change(value: object, items: list[object]) -> None:
    """Add items to a list, or keys and items to a dictionary, or set the state of an array."""
    match value, items:
        case list(), _:
            value.extend(items)
        case dict(), _ if all(isinstance(key, bytes | str) for key in items[::2]):
            value.update(zip(items[::2], items[1::2], strict=True))
        case Array(), [state]:
            value.state = state
        case Dtype(), [_]:
            pass
        case _:
            raise ValueError("it changes a value in a way that batches do not need")


def line_end(content: bytes, start: int) -> int:
    """The position after the next line feed."""
    return content.find(b"\n", start) + 1 or len(content) + 1


def load(content: bytes, max_opcodes: int) -> object:
    """The value that a pickle builds; the strings of Python 2 become bytes.

    Raises `ValueError` if it needs more opcodes or others, or is damaged.
    """
    try:
        return run(content, max_opcodes)
    except (IndexError, KeyError):  # of the stack or the memo
        raise ValueError("it is damaged") from None


def run(content: bytes, max_opcodes: int) -> object:
    """Like `load`, but may raise `IndexError` or `KeyError` as well."""
    stack: list[object] = []
    marks: list[int] = []  # lengths of the stack
    memo: dict[int, object] = {}
    end = 0
    for _ in range(max_opcodes):
        opcode = content[end : end + 1]
        start = end = end + 1
        if opcode in NUMBERS:
            end += NUMBERS[opcode]
            number = int.from_bytes(content[start:end], "little", signed=opcode == pickle.BININT)
        elif opcode in STRINGS:
            start += STRINGS[opcode]
            end = start + int.from_bytes(content[end:start], "little")
        elif opcode == pickle.GLOBAL:
            end = line_end(content, line_end(content, start))
        elif opcode in TAKEN:
            count = TAKEN[opcode]
            bottom = marks.pop() if count is None else len(stack) - count
            if bottom < 0:
                raise IndexError
            taken = stack[bottom:]
            del stack[bottom:]
        if end > len(content):
            raise ValueError("it ends early")

        match opcode:
            case pickle.BININT1 | pickle.BININT2 | pickle.BININT:
                stack.append(number)
            case pickle.SHORT_BINUNICODE | pickle.BINUNICODE | pickle.BINUNICODE8:
                stack.append(content[start:end].decode())
            case _ if opcode in STRINGS:
                stack.append(content[start:end])
            case pickle.BINPUT | pickle.LONG_BINPUT:
                memo[number] = stack[-1]
            case pickle.MEMOIZE:
                memo[len(memo)] = stack[-1]
            case pickle.BINGET | pickle.LONG_BINGET:
                stack.append(memo[number])
            case _ if opcode in CONSTANTS:
                stack.append(CONSTANTS[opcode])
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.MARK:
                marks.append(len(stack))
            case pickle.EMPTY_TUPLE | pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3 | pickle.TUPLE:
                stack.append(tuple(taken))
            case pickle.APPEND | pickle.APPENDS | pickle.SETITEM | pickle.SETITEMS | pickle.BUILD:
                change(stack[-1], taken)
            case pickle.GLOBAL:
                stack.append(function(*content[start : end - 1].decode().split("\n")))
            case pickle.STACK_GLOBAL:
                stack.append(function(*taken))
            case pickle.REDUCE:
                stack.append(call(*taken))
            case pickle.PROTO | pickle.FRAME:
                pass
            case pickle.STOP if end == len(content):
                return stack[-1]
            case pickle.STOP:
                raise ValueError("there are bytes after its end")
            case _:
                raise ValueError(f"it contains {opcode!r}, which batches do not need")
    raise ValueError(f"it has more than {max_opcodes} opcodes, which batches do not need")
