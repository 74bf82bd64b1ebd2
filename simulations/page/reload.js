// Brings the page up to date when the run's files have changed. Only parts that differ are replaced, so that what was
// unfolded or scrolled stays as it is.
"use strict";

const EVERY = 2000; // milliseconds

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin" });
  if (!answer.ok) throw new Error(answer.status);
  return answer.text();
}

function show(next) {
  const main = document.querySelector("main");
  const names = (root) => [...root.children].map((part) => part.id).join();
  if (names(main) !== names(next)) main.replaceChildren(...next.children);
  else
    for (const part of [...next.children]) {
      const shown = document.getElementById(part.id);
      if (shown.innerHTML !== part.innerHTML) shown.replaceChildren(...part.childNodes);
    }
  main.dataset.stamp = next.dataset.stamp;
}

async function look() {
  const connection = document.getElementById("connection");
  try {
    if ((await get("version")) !== document.querySelector("main").dataset.stamp) {
      const page = new DOMParser().parseFromString(await get("."), "text/html");
      document.title = page.title;
      show(page.querySelector("main"));
    }
    connection.hidden = true;
  } catch {
    connection.hidden = false;
  }
}

setInterval(() => document.hidden || look(), EVERY);
