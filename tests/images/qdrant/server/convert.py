"""Translate between the JSON of Qdrant's REST API and the objects of the storage engine.

Only what the stack, its probes and qdrant-client use is covered; anything else raises Unsupported.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as engine


class Unsupported(ValueError):
    """A request part that this server does not translate."""


DISTANCES = {
    "Cosine": engine.Distance.Cosine,
    "Euclid": engine.Distance.Euclid,
    "Dot": engine.Distance.Dot,
    "Manhattan": engine.Distance.Manhattan,
}
INDEX_TYPES = {
    "keyword": engine.PayloadSchemaType.Keyword,
    "integer": engine.PayloadSchemaType.Integer,
    "float": engine.PayloadSchemaType.Float,
    "geo": engine.PayloadSchemaType.Geo,
    "text": engine.PayloadSchemaType.Text,
    "bool": engine.PayloadSchemaType.Bool,
    "datetime": engine.PayloadSchemaType.Datetime,
    "uuid": engine.PayloadSchemaType.Uuid,
}


def config_from(params: dict[str, Any]) -> engine.EdgeConfig:
    """The engine's configuration for the `params` of a collection (`vectors`, `sparse_vectors`)."""
    vectors = params.get("vectors") or {}
    dense = {"": _vector_params(vectors)} if "size" in vectors else {k: _vector_params(v) for k, v in vectors.items()}
    sparse = {name: engine.EdgeSparseVectorParams() for name in params.get("sparse_vectors") or {}}
    return engine.EdgeConfig(vectors=dense or None, sparse_vectors=sparse or None)


def _vector_params(given: dict[str, Any]) -> engine.EdgeVectorParams:
    if given.get("multivector_config") or given.get("quantization_config"):
        raise Unsupported("multivectors and quantization are not served here")
    if given.get("distance") not in DISTANCES:
        raise Unsupported(f"unknown distance {given.get('distance')!r}")
    return engine.EdgeVectorParams(size=int(given["size"]), distance=DISTANCES[given["distance"]])


def points_from(body: dict[str, Any]) -> list[engine.Point]:
    """The points of an upsert, given as a list (`points`) or as columns (`batch`)."""
    if "batch" in body:
        batch = body["batch"]
        vectors, ids = batch["vectors"], batch["ids"]
        if isinstance(vectors, dict):
            vectors = [{name: column[i] for name, column in vectors.items()} for i in range(len(ids))]
        payloads = batch.get("payloads") or [None] * len(ids)
        return [_point(i, v, p) for i, v, p in zip(ids, vectors, payloads, strict=True)]
    return [_point(p["id"], p["vector"], p.get("payload")) for p in body["points"]]


def _point(identity: Any, vector: Any, payload: dict[str, Any] | None) -> engine.Point:
    if isinstance(vector, dict):
        vector = {name: vector_from(value) for name, value in vector.items()}
    return engine.Point(id=identity, vector=vector, payload=payload or {})


def vector_from(value: Any) -> Any:
    if isinstance(value, dict) and "indices" in value:
        return engine.SparseVector(indices=value["indices"], values=value["values"])
    return value


def filter_from(body: dict[str, Any] | None) -> engine.Filter | None:
    if not body:
        return None
    unknown = set(body) - {"must", "should", "must_not"}
    if unknown:
        raise Unsupported(f"filter clause {sorted(unknown)[0]!r} is not served here")
    return engine.Filter(**{clause: _conditions(value) for clause, value in body.items() if value is not None})


def _conditions(value: Any) -> list[Any]:
    return [_condition(c) for c in (value if isinstance(value, list) else [value])]


def _condition(given: dict[str, Any]) -> Any:
    if "has_id" in given:
        return engine.HasIdCondition(set(given["has_id"]))
    if "is_empty" in given:
        return engine.IsEmptyCondition(given["is_empty"]["key"])
    if "is_null" in given:
        return engine.IsNullCondition(given["is_null"]["key"])
    if "nested" in given:
        return engine.NestedCondition(given["nested"]["key"], filter_from(given["nested"]["filter"]))
    if "key" not in given:
        return filter_from(given)
    if given.get("match") is not None:
        return engine.FieldCondition(key=given["key"], match=_match(given["match"]))
    if given.get("range") is not None:
        limits = {k: v for k, v in given["range"].items() if v is not None}
        dates = any(isinstance(v, str) for v in limits.values())
        return engine.FieldCondition(
            key=given["key"], range=(engine.RangeDateTime if dates else engine.RangeFloat)(**limits)
        )
    raise Unsupported(f"condition {sorted(set(given) - {'key'})} is not served here")


def _match(given: dict[str, Any]) -> Any:
    kinds = {
        "value": engine.MatchValue,
        "any": engine.MatchAny,
        "except": engine.MatchExcept,
        "text": engine.MatchText,
        "phrase": engine.MatchPhrase,
    }
    for name, kind in kinds.items():
        if name in given:
            return kind(given[name])
    raise Unsupported(f"match {sorted(given)} is not served here")


def payload_wanted(given: Any, default: bool) -> Any:
    """`with_payload`: a flag, a list of keys, or include / exclude."""
    if given is None:
        return default
    if isinstance(given, dict):
        if given.get("include") is not None:
            return engine.PayloadSelector.Include(given["include"])
        return engine.PayloadSelector.Exclude(given["exclude"])
    return given


def record(item: Any) -> dict[str, Any]:
    """A stored or scored point as JSON."""
    out: dict[str, Any] = {"id": identity(item.id), "payload": item.payload}
    if item.vector is not None:
        out["vector"] = _vector_json(item.vector)
    if hasattr(item, "score"):
        out.update(version=item.version, score=item.score)
    return out


def identity(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


def _vector_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _vector_json(v) for name, v in value.items()}
    if isinstance(value, engine.SparseVector):
        return {"indices": value.indices, "values": value.values}
    return value
