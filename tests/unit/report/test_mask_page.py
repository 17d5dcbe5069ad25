"""The page has the mask as it is, in few numbers, and whatever tokens hold stays text."""

import numpy as np
import pytest

from flexray.config import MethodConfig
from flexray.prompts.prompt import Prompt
from flexray.report.mask_picture import MaskPicture
from flexray.report.show_mask import mask_page, stream_of, visible_spans
from tests.unit.report.page_reader import data_of, read_page
from tests.unit.report.pictures import picture_of

NASTY = ["</script><img src=x onerror=alert(1)>", "\x1b[2J\n", "‮gnp.exe", "&amp;<b>", "日本"]


class Page:
    """What a browser would make of it: elements, data of its script, text."""

    def __init__(self, html):
        page = read_page(html)
        self.data, self.text = data_of(page), page.text
        self.tags = [element.name for element in page.everything()]
        (self.policy,) = (
            e.attributes["content"]
            for e in page.all("meta")
            if e.attributes.get("http-equiv") == "Content-Security-Policy"
        )
        for element in page.everything():
            names = element.attributes.keys()
            assert not any(name.startswith("on") or name == "style" for name in names)
            assert not {"src", "href"} & names


def mask_of(page):
    """The mask that the page's script has."""
    rows = page.data["rows"]
    mask = np.zeros((len(rows), len(rows)), bool)
    for query, spans in enumerate(rows):
        for start, stop in zip(spans[::2], spans[1::2], strict=True):
            mask[query, start:stop] = True
    return mask


@pytest.mark.parametrize("layout", ["shared_context", "full_prompt", "myriadlama"])
@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_the_page_has_each_pair_token_and_position(layout, positions):
    prompt = Prompt(context=(1, 2), segments=((3,), (4, 5), (6,)), answer_prefix=(7,), num_manual=2)
    cross = layout == "myriadlama"
    method = MethodConfig(layout=layout, positions=positions, cross_attention=cross)
    picture = MaskPicture.of(stream_of(prompt, method, 2), lambda i: f"t{i}")
    labels = picture.labels
    page = Page(mask_page(picture, title=layout, question="q/1: Who?"))
    assert np.array_equal(mask_of(page), picture.mask)
    segments = page.data["segments"]
    assert [t for s in segments for t in s["tokens"]] == labels
    assert [p for s in segments for p in s["positions"]] == picture.positions.tolist()
    assert {s["name"]: s["kind"] for s in segments}.items() >= {
        "P1": "paraphrase",
        "answer": "answer",
    }.items()
    assert layout in page.text
    assert "q/1: Who?" in page.text


def test_whatever_tokens_and_question_hold_stays_text():
    names = ["context", "P1", "P2", "P2", "answer"]
    html = mask_page(picture_of(np.tri(5, dtype=bool), NASTY, names), title="<i>", question="".join(NASTY))
    page = Page(html)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert "i" not in page.tags
    assert "\x1b" not in html
    assert "‮" not in html
    assert page.data["segments"][0]["tokens"] == [NASTY[0]]
    assert NASTY[0] in page.text
    assert r"\x1b[2J\n" in page.text


def test_the_page_may_run_its_own_script_and_load_nothing():
    picture = picture_of(np.tri(2, dtype=bool), ["a", "b"], ["P1", "answer"])
    page = Page(mask_page(picture, title="t", question="q"))
    assert page.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in page.policy


def test_a_mask_of_thousands_of_tokens_is_a_small_page():
    context, each, count = 200, 30, 100
    prompt = Prompt(tuple(range(context)), tuple(tuple(range(each)) for _ in range(count)), tuple(range(4)))
    picture = MaskPicture.of(stream_of(prompt, MethodConfig(), 12), lambda i: "token")
    L = len(picture.mask)
    html = mask_page(picture, title="t", question="q")
    assert L > 3000
    assert len(html) < 500_000
    assert np.array_equal(mask_of(Page(html)), picture.mask)


def test_a_single_leaking_pair_is_a_span_of_its_own():
    mask = np.eye(4, dtype=bool)
    mask[3, 1] = True
    assert visible_spans(mask) == [[0, 1], [1, 2], [2, 3], [1, 2, 3, 4]]


def test_labels_must_be_as_many_as_tokens():
    with pytest.raises(ValueError, match="3 labels"):
        picture_of(np.tri(2, dtype=bool), ["a"] * 3, ["P1", "answer"])
