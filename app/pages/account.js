// What the pages of links in mails share: the token of the link, and the request that uses it.

import { ask } from "./api.js";
import { $, onSubmit, say } from "./page.js";
import { show, supported } from "./passkeys.js";

// The token is taken out of the address bar, the history and the page's Referer as soon as the page is open.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);

/**
 * Send a body with the token of the link on each submit, and show `done`. If the account has a second factor, a field for
 * its code appears, or a button for its passkey.
 */
export function useLink(path, body, done) {
  const form = $("form");
  const [factor, code, passkey] = [$("#factor"), $("#code"), form.elements.passkey];
  if (!token) {
    say("This page needs the link of a mail. Please open it again from there.");
    form.querySelectorAll("button").forEach((button) => (button.disabled = true));
  }
  onSubmit(form, async (_, button) => {
    const evidence = button === passkey ? { passkey: (await show()).passkey } : code.value ? { code: code.value } : {};
    try {
      await ask("POST", path, { token, ...body(form), ...evidence });
    } catch (error) {
      if (error.code === "second_factor_required") showFactors(error.factors);
      throw error;
    }
    form.replaceChildren(form.querySelector("[role=status]"));
    return done;
  });

  function showFactors(factors) {
    factor.hidden = !factors.some((one) => one !== "passkey");
    passkey.hidden = !(supported && factors.includes("passkey"));
    (factor.hidden ? passkey : code).focus();
  }
}
