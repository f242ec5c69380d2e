// What the pages share: forms, messages, and elements that are made without markup (Trusted Types).

export const $ = (selector) => document.querySelector(selector);

/** Make an element with properties and children; text is text, whatever it contains. */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Show a sentence in the status line of a form or of the page, which screen readers read out. */
export function say(text, place = document) {
  place.querySelector("[role=status]").textContent = text;
}

/** Return the fields of a form that are filled in. */
export const fields = (form) => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));

const GIVEN_UP = ["NotAllowedError", "AbortError"]; // the person has closed the browser's dialog for passkeys

/** Return what to tell a person of an error. */
export function sentence(error) {
  if (GIVEN_UP.includes(error.name)) return "";
  return error instanceof TypeError ? "The service cannot be reached. Please try again." : error.message; // of fetch
}

/** Run an action on each submit: the button waits, and what goes wrong is shown in the form. */
export function onSubmit(form, action) {
  const buttons = form.querySelectorAll("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    buttons.forEach((button) => (button.disabled = true));
    say("One moment…", form);
    try {
      say((await action(fields(form), event.submitter)) ?? "", form);
    } catch (error) {
      say(sentence(error), form);
    }
    buttons.forEach((button) => (button.disabled = false));
  });
}

/** Go to another page of this folder; the back button does not return to this one. */
export const go = (page) => location.replace(page);
