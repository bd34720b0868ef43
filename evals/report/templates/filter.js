"use strict";
(() => {
  const form = document.getElementById("filter");
  const task = form.elements.task, outcome = form.elements.outcome, words = form.elements.words;
  const told = document.getElementById("found");
  const tasks = [...document.querySelectorAll(".task-samples")].map((box) => ({
    box,
    groups: [...box.querySelectorAll("details.group")].map((group) => ({
      group,
      wasOpen: group.open,
      articles: [...group.querySelectorAll("article")].map((article) => ({
        article, text: article.textContent.toLowerCase(),
      })),
    })),
  }));
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    const active = Boolean(task.value || outcome.value || wanted);
    let shown = 0, all = 0;
    for (const { box, groups } of tasks) {
      const rightTask = !task.value || box.dataset.task === task.value;
      let inTask = 0;
      for (const { group, wasOpen, articles } of groups) {
        const right = rightTask && (!outcome.value || group.dataset.outcome === outcome.value);
        let inGroup = 0;
        for (const { article, text } of articles) {
          const fits = right && text.includes(wanted);
          article.hidden = !fits;
          inGroup += fits ? 1 : 0;
          all += 1;
        }
        group.hidden = active && (!right || inGroup === 0);
        group.open = active ? inGroup > 0 && Boolean(wanted || outcome.value) || wasOpen : wasOpen;
        inTask += inGroup;
      }
      box.hidden = active && (!rightTask || inTask === 0);
      shown += inTask;
    }
    told.textContent = active ? `${shown} of ${all} shown answers fit` : "";
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
})();
