// What the pages share: the token of the link, and requests to the service.

// The token is taken out of the address bar, the history and the page's Referer as soon as the page is open.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);

// The address of the API is relative to that of the page, for services behind a prefix.
const api = (path) => new URL(`..${path}`, location.href);

export const status = document.querySelector("[role=status]");

/**
 * Send a body with the token of the link on each submit; show `done`, or why it was refused. If the account has a second
 * factor, a field for its code appears.
 */
export function onSubmit(path, body, done) {
  const form = document.querySelector("form");
  const [button, factor, code] = ["button", "#factor", "#code"].map((selector) => form.querySelector(selector));
  if (!token) {
    status.textContent = "This page needs the link of a mail. Please open it again from there.";
    button.disabled = true;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    status.textContent = "One moment…";
    try {
      const response = await fetch(api(path), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ token, ...body(form), ...(factor.hidden ? {} : { code: code.value }) }),
      });
      if (response.ok) {
        form.hidden = true;
        status.textContent = done;
        return;
      }
      const problem = await response.json();
      status.textContent = reason(problem);
      if (problem.code === "second_factor_required") {
        factor.hidden = false;
        code.required = true;
        code.focus();
      }
    } catch {
      status.textContent = "The service cannot be reached. Please try again.";
    }
    button.disabled = false;
  });
}

/** Return the sentence of an error (RFC 9457). */
function reason(problem) {
  const field = problem.errors?.[0];
  return field ? `The ${field.field.replaceAll("_", " ")} ${field.message}.` : problem.detail;
}
