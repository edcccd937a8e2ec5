// Make buttons of the choices of a quiz: each shows at once what its answer teaches.
(() => {
  const say = (text, ...values) => Documentation.gettext(text).replace(/\{(\d)\}/g, (_, n) => values[n]);
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const quiz = document.querySelector("section.quiz");
  if (!quiz) return;
  const questions = [...quiz.querySelectorAll(".quiz-question")];
  const result = make("p", { className: "quiz-result", role: "status" });
  let found = 0;
  let atOnce = 0;

  for (const question of questions) {
    const details = question.querySelector("details");
    const answers = [...details.querySelectorAll("li")];
    const shown = make("div", { className: "quiz-answer", role: "status" });
    let tries = 0;
    let isFound = false;
    const buttons = [...question.querySelector("ol").children].map((item, place) => {
      const button = make("button", { type: "button" });
      button.append(...item.querySelector("p").childNodes);
      item.replaceChildren(button);
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", other === button);
        const isRight = answers[place].querySelector("strong").matches(".right");
        button.classList.add(isRight ? "right" : "wrong");
        shown.className = `quiz-answer ${isRight ? "right" : "wrong"}`;
        shown.replaceChildren(...answers[place].cloneNode(true).childNodes);
        tries += !isFound;
        if (!isRight || isFound) return;
        isFound = true;
        found += 1;
        atOnce += tries === 1;
        if (found === questions.length)
          result.textContent = say("All {0} found, {1} of them at the first try.", found, atOnce);
      });
      return button;
    });
    question.setAttribute("role", "group");
    question.setAttribute("aria-labelledby", question.querySelector("[id]").id);
    details.replaceWith(shown);
  }
  quiz.append(result);
})();
