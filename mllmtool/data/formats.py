"""Rows of the field's common formats as our samples: `{"id", "images", "messages"}`.

    messages          {"messages": [{"role", "content"}]}: ours, OpenAI's and others'; content is
                      text or a list of parts
    llava             {"conversations": [{"from", "value"}], "image": NAME or [NAME]}
    sharegpt          the same with "images", or with role and content; "system" may stand beside
    alpaca            {"instruction", "input", "output"}, maybe "system" and "history"
    prompt-response   "prompt" or "question" or "query", with "response", "answer" or "completion"

Texts stay as they are. The images are those of `images` or `image`, or of the parts that name
them; where a row of columns names images and marks none in its text, the marks are put in front.
Further keys are kept.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from mllmtool.configs.mix_data import Format
from mllmtool.errors import DataError, some

IMAGE_MARK = "<image>"
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "bard", "bing"), "assistant"),
    "system": "system",
}
PROMPTS, RESPONSES = ("prompt", "question", "query"), ("response", "answer", "completion")
IMAGE_KEYS = ("images", "image")
SHAPE = frozenset(("id", "messages", *IMAGE_KEYS))
USED_IN_CONVERSATIONS = SHAPE | {"conversations", "system"}
USED_IN_ALPACA = SHAPE | {"instruction", "input", "output", "history", "system"}
Row = dict[str, Any]


def detect(values: Mapping[str, Any], where: str) -> Format:
    """The format of a row, by its keys.

    Raises:
        DataError: it is of none.
    """
    if "messages" in values:
        return "messages"
    if "conversations" in values:
        return "sharegpt" if "images" in values else "llava"
    if "instruction" in values and "output" in values:
        return "alpaca"
    if any(key in values for key in PROMPTS) and any(key in values for key in RESPONSES):
        return "prompt-response"
    raise DataError(
        f"{where}: its keys ({some([str(key)[:40] for key in values]) or 'none'}) are those of no"
        f" format among {', '.join(get_args(Format))}"
    )


def to_sample(values: Row, form: Format, name: str) -> Row:
    """A row as a sample; `name` is its id where it has none.

    Raises:
        DataError: what is wrong, without the place.
    """
    try:
        return CONVERTERS[form](values, name)
    except KeyError as error:
        raise DataError(f"lacks {error}, which a row of format {form} has") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"is no row of format {form} ({error})") from error


def _messages(values: Row, name: str) -> Row:
    """Left alone unless something is to be done."""
    if not _is_foreign(values):
        return values
    named: list[str] = []
    messages = [
        {"role": _role(turn["role"]), "content": _content(turn["content"], named)}
        for turn in _turns(values["messages"])
    ]
    images = _images(values)
    if named and images:
        raise ValueError("its images are named in parts and in a column")
    return _sample(values, name, messages, named or images, SHAPE)


def _is_foreign(values: Row) -> bool:
    """Whether a row of messages is not of our shape; the check says what else is wrong with it."""
    turns, images = values["messages"], values.get("images", ())
    if "image" in values or type(values.get("id")) is not str or images is None:
        return True
    return type(turns) is list and (
        any(type(name) is not str or ":" in name for name in images)
        or any(type(turn) is dict and _is_foreign_turn(turn) for turn in turns)
    )


def _is_foreign_turn(turn: Row) -> bool:
    content = turn.get("content")
    if type(content) is str:
        return turn.get("role") in ROLES and ROLES[turn["role"]] != turn["role"]
    return type(content) is list and any(
        type(part) is dict and not part.keys() <= {"type", "text"} for part in content
    )


def _turns(turns: list[Row]) -> list[Row]:
    """They say who speaks and what; a further key would be lost, so it is refused."""
    for turn in turns:
        if len(turn) != 2:
            raise ValueError(f"a turn has {some([str(key)[:40] for key in turn]) or 'no keys'}")
    return turns


def _content(content: Any, images: list[str]) -> str:
    """Text with marks; the images that its parts name are added to `images`."""
    if type(content) is str:
        return content
    texts = []
    for part in content:
        if part["type"] == "text":
            texts.append(_text(part["text"]))
            continue
        if part["type"] not in ("image", "image_url"):
            raise ValueError(f"a part of type {part['type']!r}")
        texts.append(f"{IMAGE_MARK}\n")
        named = next(
            (part[key] for key in ("image_url", "image", "url", "path") if key in part), None
        )
        if named is not None:
            images.append(_file(named["url"] if type(named) is dict else named))
    return "".join(texts)


def _file(name: Any) -> str:
    """The name of an image's file; a web address or embedded bytes are refused."""
    if type(name) is dict:
        if name.get("bytes") is not None:
            raise ValueError("an image is embedded as bytes; write it to a file and name that")
        name = name.get("path")
    if type(name) is not str or not name:
        raise ValueError(f"{name!r:.40} is not the name of an image file")
    if name.startswith("file://"):
        return name.removeprefix("file://")
    if name.startswith(("data:", "http://", "https://")):
        raise ValueError(f"{name[:40]!r} is not a local file; fetch it and name the file")
    return name


def _conversations(values: Row, name: str) -> Row:
    turns = values["conversations"]
    role, text = ("from", "value") if turns and "from" in turns[0] else ("role", "content")
    try:
        messages = [{"role": ROLES[turn[role]], "content": turn[text]} for turn in turns]
    except KeyError:
        messages = [{"role": _role(turn[role]), "content": turn[text]} for turn in turns]
    if sum(map(len, turns)) != 2 * len(messages):
        _turns(turns)
    _put_system(values, messages)
    return _sample(values, name, messages, _images(values), USED_IN_CONVERSATIONS)


def _alpaca(values: Row, name: str) -> Row:
    given = _text(values.get("input") or "")
    prompt = _text(values["instruction"]) + (f"\n{given}" if given else "")
    turns = [*(values.get("history") or ()), (prompt, values["output"])]
    return _columns(values, name, turns, USED_IN_ALPACA)


def _prompt_response(values: Row, name: str) -> Row:
    prompt, response = (
        next((key for key in keys if key in values), keys[0]) for keys in (PROMPTS, RESPONSES)
    )
    asked = values[prompt]
    if type(asked) is list:  # turns, as TRL has them
        messages = [*asked, *values[response]]
        rest = {key: value for key, value in values.items() if key not in (prompt, response)}
        return _messages({**rest, "messages": messages}, name)
    return _columns(values, name, [(asked, values[response])], SHAPE | {prompt, response, "system"})


def _columns(values: Row, name: str, turns: Iterable[Any], used: frozenset[str]) -> Row:
    messages = []
    for asked, answered in turns:
        messages.append({"role": "user", "content": _text(asked)})
        messages.append({"role": "assistant", "content": _text(answered)})
    images = _images(values)
    if images and not any(IMAGE_MARK in turn["content"] for turn in messages):
        messages[0]["content"] = f"{IMAGE_MARK}\n" * len(images) + messages[0]["content"]
    _put_system(values, messages)
    return _sample(values, name, messages, images, used)


def _put_system(values: Row, messages: list[Row]) -> None:
    if values.get("system"):
        messages.insert(0, {"role": "system", "content": _text(values["system"])})


def _sample(
    values: Row, name: str, messages: list[Row], images: list[str], used: frozenset[str]
) -> Row:
    given = values.get("id")
    sample: Row = {"id": given if type(given) is str else name if given is None else str(given)}
    if images:
        sample["images"] = images
    sample["messages"] = messages
    if not values.keys() <= used:
        sample |= {key: value for key, value in values.items() if key not in used}
    return sample


def _images(values: Row) -> list[str]:
    """Of `images` or `image`: a name or a list of names; none where they are null."""
    found = values.get("images")
    if found is None:
        found = values.get("image")
    if type(found) is list:
        return [name if type(name) is str and ":" not in name else _file(name) for name in found]
    if type(found) is str and ":" not in found:
        return [found] if found else []
    return [] if found is None else [_file(found)]


def _role(role: Any) -> str:
    if role not in ROLES:
        raise ValueError(f"the role {role!r:.40} is none of {', '.join(ROLES)}")
    return ROLES[role]


def _text(text: Any) -> str:
    if type(text) is not str:
        raise TypeError(f"{text!r:.40} is not a text")
    return text


CONVERTERS: dict[Format, Callable[[Row, str], Row]] = {
    "messages": _messages,
    "llava": _conversations,
    "sharegpt": _conversations,
    "alpaca": _alpaca,
    "prompt-response": _prompt_response,
}
