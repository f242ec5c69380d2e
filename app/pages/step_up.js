// Authenticate again when a route needs it (RFC 9470), in a dialog, and repeat the request.

import { call } from "./api.js";
import { $, fields, say, sentence } from "./page.js";
import { show, supported } from "./passkeys.js";

const dialog = $("#step-up");
const form = dialog.querySelector("form");
const [password, code] = [$("#step-up-password"), $("#step-up-code")];
const [passwordLabel, codeField, passkey] = [password.labels[0], code.parentElement, form.elements.passkey];

/** Like call; if a recent authentication is required, ask for it. Given up, it throws the refusal. */
export async function freshly(method, path, body) {
  try {
    return await call(method, path, body);
  } catch (error) {
    if (error.code !== "step_up_required" || !(await stepUp())) throw error;
    return call(method, path, body);
  }
}

/** Ask for the password, or for the second factor of an account that has one. Returns whether it was shown. */
async function stepUp() {
  const factors = await call("GET", "/users/me/factors").catch(() => ({}));
  const withCode = factors.totp || factors.recovery_codes_left > 0;
  const withFactor = withCode || factors.passkeys > 0;
  password.hidden = passwordLabel.hidden = withFactor;
  codeField.hidden = !withCode;
  passkey.hidden = !(supported && factors.passkeys > 0);
  form.reset();
  say("", form);
  dialog.showModal();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (event.submitter.value === "cancel") return dialog.close();
      try {
        const proof = event.submitter === passkey ? await shownPasskey() : fields(form);
        await call("POST", "/auth/step-up", { ...proof, mode: "cookie" });
        dialog.close("done");
      } catch (error) {
        say(sentence(error), form);
      }
    };
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "done"), { once: true });
    dialog.returnValue = "";
  });
}

const shownPasskey = async () => ({ passkey: (await show({ inSession: true })).passkey });
