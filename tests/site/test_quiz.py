"""The quiz at the end of a chapter: by mouse, by keyboard, without JavaScript, in both themes."""

import pytest
import quiz

CHAPTERS = sorted(path.stem for path in quiz.QUIZZES.parents[1].glob("notebooks/*.ipynb"))


@pytest.fixture
def open_quiz(open_page):
    """Return a function that opens a chapter and returns its page and its questions."""

    def open_quiz(chapter, **options):
        # Formulas and pictures play no part here.
        page = open_page(f"notebooks/{chapter}.html", skip="mathjax|_images", **options)
        return page, quiz.read_quiz(quiz.quiz_of(f"notebooks/{chapter}"))

    return open_quiz


def plain(text):
    """Return a text without its marks, whatever shape its quotation marks have."""
    return " ".join(text.replace("`", "").replace("*", "").replace("’", "'").split())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_answer_teaches(open_quiz, chapter):
    page, questions = open_quiz(chapter)
    # Every choice is clicked, from the top.
    seen = page.evaluate(
        """() => [...document.querySelectorAll(".quiz-question")].map((question) => {
          const texts = [...question.querySelectorAll("button")].map((button) => {
            const text = button.innerText;
            button.click();
            return [text, question.querySelector(".quiz-answer").innerText];
          });
          return { ask: question.querySelector("p").innerText, texts };
        })"""
    )
    assert len(seen) == len(questions)
    for number, (shown, question) in enumerate(zip(seen, questions, strict=True), 1):
        assert plain(shown["ask"]) == f"{number}. {plain(question['ask'])}"
        expected = [
            [plain(text), f"{'Right.' if is_right else 'Not right.'} {plain(why)}"]
            for text, is_right, why in question["choices"]
        ]
        assert [[plain(part) for part in pair] for pair in shown["texts"]] == expected
    at_once = sum(question["choices"][0][1] for question in questions)
    result = page.locator(".quiz-result").inner_text()
    assert result == f"All {len(questions)} found, {at_once} of them at the first try."


def test_a_quiz_needs_no_mouse(open_quiz):
    page, questions = open_quiz("08-quantization")
    right = next(n for n, choice in enumerate(questions[0]["choices"]) if choice[1])
    page.locator(".quiz-question").first.locator("button").first.focus()
    for _ in range(right):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    pressed = page.locator('.quiz-question button[aria-pressed="true"]')
    assert pressed.inner_text() == plain(questions[0]["choices"][right][0])
    group = page.get_by_role("group", name=plain(f"1. {questions[0]['ask']}"), exact=True)
    assert group.get_by_role("status").inner_text().startswith("Right.")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_answers_are_readable(open_quiz, theme):
    from axe_playwright_python.sync_playwright import Axe

    look = {"color_scheme": theme, "reduced_motion": "reduce"}
    page, questions = open_quiz("16-retrieval", **look)
    for place, question in enumerate(questions):
        is_right = [choice[1] for choice in question["choices"]]
        wanted = is_right.index(bool(place % 2))  # some right, some wrong
        page.locator(".quiz-question").nth(place).locator("button").nth(wanted).click()
    page.wait_for_timeout(300)  # colours change smoothly
    found = Axe().run(page, context={"include": [["section.quiz"]]}).response["violations"]
    assert not [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]


def test_without_javascript_the_answers_are_folded(open_quiz):
    page, questions = open_quiz("00-in-ten-minutes", java_script_enabled=False)
    assert page.locator(".quiz-question button").count() == 0
    answers = page.locator(".quiz-question details")
    assert answers.count() == len(questions)
    answers.first.locator("summary").click()
    assert answers.first.locator("li", has_text="Not right.").first.is_visible()
    assert page.locator(".quiz-question > ol > li").first.is_visible()
