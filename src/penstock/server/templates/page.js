// Asks for the page again every two seconds while somebody looks at it, and shows what changed.
let shown = document.querySelector("main").innerHTML;
async function again() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/");
    const found = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = found.querySelector("main").innerHTML;
    document.querySelector(".live").textContent = found.querySelector(".live").textContent;
    document.body.classList.remove("stale");
    if (next !== shown && !String(getSelection())) {
      document.querySelector("main").innerHTML = next;
      shown = next;
    }
  } catch {
    document.body.classList.add("stale");
    document.querySelector(".live").textContent = "penstock serve does not answer";
  }
}
setInterval(again, 2000);
document.addEventListener("visibilitychange", again);
