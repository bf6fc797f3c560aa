"""The proof of a bento: it is started as it will run, and answers as its models do by MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import bento_indexes, load_bento, model_paths, require_found
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.http import HttpAnswer
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.proof.comparing import KIND, answer_differences, in_words
from kfp_bento.runtime.proof.content import JSON, Content
from kfp_bento.runtime.proof.differences import Difference, Tolerance
from kfp_bento.runtime.proof.environment import find_python, locked_environment, read_lock
from kfp_bento.runtime.proof.expected import Prediction, predictions
from kfp_bento.runtime.proof.flavors import missing_flavor
from kfp_bento.runtime.proof.golden import (
    DEPENDENT,
    MODEL,
    OFF,
    ON,
    REQUEST,
    SERVICE,
    UNKNOWN,
    Golden,
    GoldenModel,
    GoldenRequest,
    with_answer,
)
from kfp_bento.runtime.proof.kept import ProofRecords, kept_at
from kfp_bento.runtime.proof.requests import GIVEN, SYNTHETIC, requests_for
from kfp_bento.runtime.proof.rows import row_independence
from kfp_bento.runtime.proof.served import Served, started
from kfp_bento.runtime.requirements import allowed_sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.models import ModelVersion

RELATIVE, ABSOLUTE = 1e-6, 1e-9

_TOGETHER = 1 << 30
"""Bytes of models up to which they are loaded twice at the same time."""

_OFF = "Verify is off: the bento was not started before it became an image."


def prove_bento(
    bento: Bento,
    models: Sequence[ModelVersion],
    *,
    requests: Sequence[object] = (),
    relative_tolerance: float = RELATIVE,
    absolute_tolerance: float = ABSOLUTE,
    allow_sources: Sequence[str] = (),
    shared: ProofRecords | None = None,
    anew: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Golden:
    """Start a bento in its locked environment, ask it, and ask its models the same by MLflow.

    Both run confined, as other people's code does: no network, no credentials. What was proven
    before, byte for byte and with the same requests, is not asked again: on this machine, or by
    those whose records are believed.

    Args:
        bento: The bento.
        models: Its models, as they were pulled.
        requests: What to ask, see `given_requests`; by default the models' own input examples.
        relative_tolerance: Allowed distance of floats, in relation to the expected value.
        absolute_tolerance: Allowed distance of floats besides. Integers, strings and booleans
            must be equal.
        allow_sources: As for `build_bento`.
        shared: Where other machines keep their proofs.
        anew: Whether to ask it whatever was proven before.
        tell: Told what is going on.

    Returns:
        The requests with the right answers.

    Raises:
        BentoError: The environment cannot be made, a package is missing, a model cannot be loaded
            or refuses its own example, the bento does not start where it is asked, or answers
            something else.
        InvalidInput: A request is none.
    """
    tolerance = _tolerance(relative_tolerance, absolute_tolerance)
    # What can be known at once is known before anything is installed.
    require_found(bento.tag, bento.listening)
    asked = requests_for(bento, models, requests)
    interpreter = find_python(bento.python_version)
    if missing := missing_flavor(models, read_lock(bento)):
        raise BentoError(missing[0], hint=missing[1])
    indexes = bento_indexes(models, allowed_sources(allow_sources))
    known = kept_at(bento, golden_models(models), asked, tolerance, interpreter, shared)
    if not anew and (found := known.find()) is not None:
        tell(f"proven on {found.earlier} in an earlier run, and not asked again")
        return found
    golden = _asked_anew(bento, models, asked, indexes, tolerance, tell)
    known.keep(golden)
    return golden


def _asked_anew(
    bento: Bento,
    models: Sequence[ModelVersion],
    asked: Sequence[GoldenRequest],
    indexes: Sequence[str],
    tolerance: Tolerance,
    tell: Callable[[str], None],
) -> Golden:
    """Give the golden answers of a bento that is started for them."""
    tell("installing the bento's environment")
    with ExitStack() as stack:
        environment = stack.enter_context(locked_environment(bento, indexes=indexes))
        scratch = stack.enter_context(
            scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-proof-")
        )
        tell("asking the bento and its models" if models else "asking the bento")
        answers, expected = _ask_both(bento, models, asked, environment, scratch, tolerance)
    _require_unchanged(bento)
    kept, left_out = _judged(bento, asked, answers, expected, tolerance)
    rows, rows_reason = row_independence(kept, tolerance)
    return Golden(
        bento.tag,
        golden_models(models),
        tuple(kept),
        ON,
        _how(kept, left_out),
        tolerance,
        rows,
        rows_reason,
    )


def golden_answers(
    bento: Bento,
    models: Sequence[ModelVersion],
    *,
    verify: bool = True,
    requests: Sequence[object] = (),
    relative_tolerance: float = RELATIVE,
    absolute_tolerance: float = ABSOLUTE,
    allow_sources: Sequence[str] = (),
    batched: bool = False,
    shared: ProofRecords | None = None,
    anew: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Golden:
    """Prove a bento, unless verify is off; see `prove_bento` and `unproven`.

    Args:
        bento: The bento.
        models: Its models, as they were pulled.
        verify: Whether to start it at all.
        requests: What to ask, see `given_requests`.
        relative_tolerance: See `prove_bento`.
        absolute_tolerance: The same.
        allow_sources: As for `build_bento`.
        batched: Whether the service puts rows of several callers together, which is refused where
            they are not independent as far as the answers show.
        shared: See `prove_bento`.
        anew: The same.
        tell: Told what is going on.

    Raises:
        BentoError: See `prove_bento`; or rows that would be put together depend on each other.
        InvalidInput: A request is none, or a tolerance is none.
    """
    if not verify:
        return unproven(bento, models, requests=requests)
    golden = prove_bento(
        bento,
        models,
        requests=requests,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
        allow_sources=allow_sources,
        shared=shared,
        anew=anew,
        tell=tell,
    )
    if batched and golden.rows == DEPENDENT:
        raise BentoError(
            f"The rows of several callers cannot be put together by {bento.tag}: "
            f"{golden.rows_reason}",
            hint="Build it without batching. A model whose answers differ by rounding alone needs "
            "a larger tolerance.",
        )
    return golden


def unproven(
    bento: Bento, models: Sequence[ModelVersion], *, requests: Sequence[object] = ()
) -> Golden:
    """Give what a bento could be asked, without asking it: for builds with verify off.

    Raises:
        InvalidInput: A request is none.
    """
    try:
        asked = requests_for(bento, models, requests)
    except BentoError:  # nothing to ask, which is no matter here
        asked = []
    return Golden(
        bento.tag,
        golden_models(models),
        tuple(replace(one, answer=None) for one in asked),
        OFF,
        _OFF,
        Tolerance(RELATIVE, ABSOLUTE),
        UNKNOWN,
        _OFF,
    )


def golden_models(models: Sequence[ModelVersion]) -> tuple[GoldenModel, ...]:
    """Give what golden answers say of the models of a bento."""
    return tuple(
        GoldenModel(tag, model.uri, model.version, model.digest, model.signature)
        for model, tag in zip(models, _tags(models), strict=True)
    )


def _tags(models: Sequence[ModelVersion]) -> list[str]:
    return [*model_paths(models)] if models else []


def _tolerance(relative: float, absolute: float) -> Tolerance:
    if not (0 <= relative < float("inf") and 0 <= absolute < float("inf")):
        raise InvalidInput(
            f"The tolerances {relative!r} and {absolute!r} are none.",
            hint="Give numbers that are not negative, such as 1e-6.",
        )
    return Tolerance(relative, absolute)


def _ask_both(
    bento: Bento,
    models: Sequence[ModelVersion],
    asked: Sequence[GoldenRequest],
    environment: Path,
    scratch: Path,
    tolerance: Tolerance,
) -> tuple[list[HttpAnswer], list[Prediction | None]]:
    """Give what the bento answers and what its models predict, for each request."""
    if sum(model.size for model in models) > _TOGETHER:
        expected = _predicted(models, asked, environment, scratch)
        with started(bento, environment, scratch) as served:
            return _served(served, bento, asked, tolerance), expected
    with started(bento, environment, scratch) as served, ThreadPoolExecutor(1) as pool:
        predicting = pool.submit(_predicted, models, asked, environment, scratch)
        answers, failure = list[HttpAnswer](), None
        try:
            answers = _served(served, bento, asked, tolerance)
        except BentoError as error:
            failure = error
        # What MLflow says of a model that cannot be loaded is nearer to the reason.
        expected = predicting.result()
        if failure:
            raise failure
        return answers, expected


def _require_unchanged(bento: Bento) -> None:
    """Refuse a bento that its own code changed while it ran beside it."""
    if load_bento(bento.directory, deferred=True).digest != bento.digest:
        files = [path for path in bento.directory.rglob("*") if path.is_file()]
        last = max(files, key=lambda path: path.lstat().st_ctime_ns).relative_to(bento.directory)
        raise BentoError(
            f"The files of the bento {bento.tag} changed while it was being proven; the last was "
            f"{cleaned(str(last))}.",
            hint="Let the service write elsewhere, such as into a temporary directory; with verify "
            "off it is built unproven.",
        )


def _served(
    served: Served, bento: Bento, asked: Sequence[GoldenRequest], tolerance: Tolerance
) -> list[HttpAnswer]:
    served.wait()
    answers = [served.ask(one) for one in asked]
    _require_same(bento, asked, answers, served, tolerance)
    return answers


def _predicted(
    models: Sequence[ModelVersion],
    asked: Sequence[GoldenRequest],
    environment: Path,
    scratch: Path,
) -> list[Prediction | None]:
    """Give the predictions for the requests that ask a model; models are loaded one by one."""
    found: list[Prediction | None] = [None] * len(asked)
    for number, (model, tag) in enumerate(zip(models, _tags(models), strict=True)):
        places = [index for index, one in enumerate(asked) if one.model == tag]
        bodies = [_body(asked[index]) for index in places]
        folder = scratch / f"model-{number}"
        folder.mkdir()
        for index, one in zip(places, predictions(environment, model, bodies, folder), strict=True):
            found[index] = one
    return found


def _body(request: GoldenRequest) -> Mapping[str, object]:
    assert request.content is not None  # noqa: S101 - who asks a model has inputs
    body: Mapping[str, object] = request.content.value
    return body


def _judged(
    bento: Bento,
    asked: Sequence[GoldenRequest],
    answers: Sequence[HttpAnswer],
    expected: Sequence[Prediction | None],
    tolerance: Tolerance,
) -> tuple[list[GoldenRequest], int]:
    """Give the requests with their right answers, and how many synthetic ones were refused."""
    kept, refused = [], 0
    for request, answer, prediction in zip(asked, answers, expected, strict=True):
        if prediction is not None and prediction.refusal:
            if request.source == SYNTHETIC:
                refused += 1
                continue
            _require_refusal(bento, request, answer, prediction)
        if request.answer is not None:
            _require_answer(bento, request, answer, tolerance)
            kept.append(request)
            continue
        if prediction is None or prediction.refusal:
            kept.append(_as_served(bento, request, answer))
            continue
        right = with_answer(request, 200, Content(JSON, "json", prediction.value), MODEL)
        found = _mismatches(answer, right, tolerance)
        if found:
            raise BentoError(
                f"The bento {bento.tag} does not answer as its model does: "
                f"{cleaned(in_words(f'{request.place}, {request.label}', found))}.",
                hint="The expected answer is that of mlflow.pyfunc in the same environment. "
                "Give a larger tolerance where the model computes with chance or in another "
                "order; with verify off the bento is built unproven.",
            )
        kept.append(right)
    return kept, refused


def _require_refusal(
    bento: Bento, request: GoldenRequest, answer: HttpAnswer, prediction: Prediction
) -> None:
    """Refuse what the model itself refuses: its own example, or what the service answers."""
    if request.source != GIVEN:
        raise BentoError(
            f"The model of the bento {bento.tag} cannot answer its own input example "
            f"({request.label}): {prediction.refusal}.",
            hint="Try mlflow.models.predict with the model and its input example, and log it "
            "again; or give requests.",
        )
    if answer.status < 400:
        raise BentoError(
            f"The bento {bento.tag} answers {request.place} ({request.label}), which its model "
            f"refuses: {prediction.refusal}.",
            hint="Correct the request; `expect: service` takes what is served as right.",
        )


def _mismatches(answer: HttpAnswer, right: GoldenRequest, tolerance: Tolerance) -> list[Difference]:
    assert right.answer is not None  # noqa: S101 - it was given one
    found = answer_differences(answer, right.answer, tolerance, right.compare)
    return [one for one in found if one.reason]


def _require_answer(
    bento: Bento, request: GoldenRequest, answer: HttpAnswer, tolerance: Tolerance
) -> None:
    """Refuse another answer than the one that the user wrote down."""
    if found := _mismatches(answer, request, tolerance):
        raise BentoError(
            f"The bento {bento.tag} does not answer as the request says: "
            f"{cleaned(in_words(f'{request.place}, {request.label}', found))}.",
            hint="Correct the service, or the `answer` of the request; without one what is served "
            "is taken for right.",
        )


def _require_same(
    bento: Bento,
    asked: Sequence[GoldenRequest],
    once: Sequence[HttpAnswer],
    served: Served,
    tolerance: Tolerance,
) -> None:
    """Refuse what a service of one's own answers otherwise the second time.

    Such an answer would fail the release in its last check.
    """
    for request, answer in zip(asked, once, strict=True):
        if request.model or request.compare == KIND or request.answer is not None:
            continue
        first = _as_served(bento, request, answer)
        if found := _mismatches(served.ask(request), first, tolerance):
            raise BentoError(
                f"The bento {bento.tag} does not answer the same twice: "
                f"{cleaned(in_words(f'{request.place}, {request.label}', found))}.",
                hint="Let it answer the same to the same, without a clock or chance; or write "
                "`compare: kind` into the request, so that status and media type are compared "
                "and nothing else.",
            )


def _as_served(bento: Bento, request: GoldenRequest, answer: HttpAnswer) -> GoldenRequest:
    if answer.status >= 500:
        raise BentoError(
            f"The bento {bento.tag} fails to answer {request.place} ({request.label}): "
            f"{answer.shown()}.",
            hint="Correct the service or the request.",
        )
    return with_answer(request, answer.status, Content.of(answer.body, answer.media_type), SERVICE)


def _how(kept: Sequence[GoldenRequest], refused: int) -> str:
    """Say how a bento was proven, for people."""
    said = "The bento was started in its locked environment"
    sources = list(dict.fromkeys(one.source for one in kept))
    if kept:
        by_model = sum(one.is_predicted for one in kept)
        by_request = sum(bool(one.answer and one.answer.source == REQUEST) for one in kept)
        count = f"{len(kept)} requests" if len(kept) > 1 else "one request"
        said += f" and asked {count} ({', '.join(sources)})"
        if by_model == len(kept):
            said += "; mlflow.pyfunc predicts the same"
        elif by_model:
            said += f"; mlflow.pyfunc predicts the same for {by_model} of them"
        elif by_request < len(kept):
            said += "; what it served is taken for right"
        if by_request:
            said += f"; {'all' if by_request == len(kept) else by_request} answers are as given"
    elif not refused:
        said += " and became ready; it was asked nothing else"
    if refused:
        said += "; values made from the signature were refused by the model"
    return f"{said}."
