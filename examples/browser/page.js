// The page: a form to log in or register, or who is logged in and a button to log out.

import { logOut, open, whoAmI } from "./session.js";

const $ = (selector) => document.querySelector(selector);

// Run an action, then show who is logged in; or show what went wrong.
async function run(action) {
  $("[role=status]").textContent = "";
  try {
    await action();
    const user = await whoAmI();
    $("form").hidden = user !== null;
    $("section").hidden = user === null;
    $("strong").textContent = user?.username ?? "";
  } catch (error) {
    $("[role=status]").textContent = error.message;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const credentials = Object.fromEntries(new FormData($("form")));
  run(() => open(event.submitter.value, credentials, () => prompt("Code of your second factor")));
  $("form").reset();
});
$("section button").addEventListener("click", () => run(logOut));

// Also when the page comes back from the browser's cache (BFCache), maybe after a logout.
addEventListener("pageshow", () => run(() => {}));
