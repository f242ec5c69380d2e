// Log in: by name and password, then a second factor if the account has one; or by a passkey alone.

import { open } from "./api.js";
import { $, go, onSubmit, say, sentence } from "./page.js";
import { offer, show, supported } from "./passkeys.js";

let challenge; // of a login whose password was right

onSubmit($("#login"), async ({ username, password }) => {
  try {
    await open("/auth", { username, password });
  } catch (error) {
    if (error.code !== "second_factor_required") throw error;
    return askForFactor(error);
  }
  return go("./");
});

function askForFactor(refusal) {
  challenge = refusal.challenge;
  const withCode = refusal.factors.some((factor) => factor !== "passkey");
  $("#login").hidden = $("#passkey").hidden = true;
  $("#factor").hidden = false;
  $("#with-code").hidden = !withCode;
  $("#factor-passkey").hidden = !(supported && refusal.factors.includes("passkey"));
  (withCode ? $("#code") : $("#factor-passkey")).focus();
}

onSubmit($("#factor"), async ({ code }, button) => {
  const withPasskey = button?.name === "passkey";
  const evidence = withPasskey ? { passkey: (await show()).passkey } : { code };
  await open("/auth/second-factor", { challenge, ...evidence });
  return go("./");
});

// A passkey needs no name: the browser offers those that it has in the field of the name, and all others on a click.
async function logIn(shown) {
  await open("/auth/passkey", await shown);
  return go("./");
}

$("#passkey").hidden = !supported;
if ($("#passkey").checkVisibility()) {
  onSubmit($("#passkey"), () => logIn(show()));
  if (await PublicKeyCredential.isConditionalMediationAvailable?.()) {
    logIn(offer()).catch((error) => say(sentence(error), $("#passkey")));
  }
}
