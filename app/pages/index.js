// The account of who is logged in: everything is read from the API, and read again after each change.

import { call } from "./api.js";
import { $, element, go, onSubmit, say, sentence } from "./page.js";
import { make, supported } from "./passkeys.js";
import { freshly } from "./step_up.js";

const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const time = (text) => element("time", { dateTime: text }, when.format(new Date(text)));

/** A row of a list: what it is, and a button that removes it unless there is nothing to call it. */
function row(title, details, label, remove) {
  const text = element("div", {}, element("strong", {}, title), element("p", { className: "quiet" }, ...details));
  if (!label) return element("li", {}, text);
  const button = element("button", { className: "other", ariaLabel: `${label} ${title}` }, label);
  const form = element("form", {}, button, element("p", { role: "status" }));
  onSubmit(form, remove);
  return element("li", {}, text, form);
}

const BROWSERS = [["Edg", "Edge"], ["OPR", "Opera"], ["Firefox"], ["Chrome"], ["Safari"]]; // each contains the later ones
const SYSTEMS = [["iPhone"], ["iPad"], ["Android"], ["Windows"], ["Mac OS X", "macOS"], ["Linux"]];

/** Return a name for the program of a session, such as "Firefox on Windows"; any client can claim any name. */
function device(userAgent) {
  const known = (names) => names.find(([part]) => userAgent?.includes(part))?.at(-1);
  const [browser, system] = [known(BROWSERS), known(SYSTEMS)];
  return browser && system ? `${browser} on ${system}` : userAgent || "An unknown program";
}

async function showUser() {
  const me = await call("GET", "/auth/me");
  $("#who").textContent = `You are ${me.username}.`;
  $("#email-state").textContent = me.email
    ? `${me.email} ${me.email_verified ? "is confirmed." : "is not confirmed yet: type the code that was sent to it."}`
    : "You have given none. Without one, nobody can help you if you forget the password.";
  $("#email-verification").hidden = !me.email || me.email_verified;
}

async function showSessions() {
  const { sessions } = await call("GET", "/auth/sessions");
  const rows = sessions.map((session) => {
    const title = device(session.user_agent);
    const details = [`from ${session.address}, last used `, time(session.refreshed_at)];
    if (session.current) return row(title, ["This session, ", ...details]);
    return row(title, details, "End", async () => {
      await call("DELETE", `/auth/sessions/${session.id}`);
      await showSessions();
    });
  });
  $("#sessions").replaceChildren(...rows);
}

async function showFactors() {
  const factors = await call("GET", "/users/me/factors").catch(() => null);
  document.querySelectorAll("[data-factors]").forEach((section) => (section.hidden = factors === null));
  if (factors === null) return;
  $("#totp-state").textContent = factors.totp ? "An app shows the codes for your logins." : "You use none.";
  $("#totp button").textContent = factors.totp ? "Remove it" : "Set it up";
  $("#totp").dataset.on = factors.totp;
  $("#recovery-codes").hidden = !(factors.totp || factors.passkeys);
  $("#codes-left").textContent = $("#recovery-codes").hidden ? "" : `${factors.recovery_codes_left} recovery codes are left.`;
  await showPasskeys();
}

async function showPasskeys() {
  const { passkeys } = await call("GET", "/users/me/passkeys");
  const rows = passkeys.map((passkey) =>
    row(passkey.name, ["added ", time(passkey.added_at)], "Remove", async () => {
      await freshly("DELETE", `/users/me/passkeys/${passkey.id}`);
      await showAll();
    }),
  );
  $("#passkeys").replaceChildren(...rows);
  $("#passkey").hidden = !supported;
}

function showCodes(codes) {
  if (!codes) return;
  $("#codes ul").replaceChildren(...codes.map((code) => element("li", {}, element("code", {}, code))));
  $("#codes").hidden = false;
  $("#codes").scrollIntoView();
}

async function showAll() {
  await Promise.all([showUser(), showFactors()]);
  const sessions = await showSessions().catch((error) => error);
  // An account that must have a second factor can only enrol one, until it has (REQUIRE_SECOND_FACTOR).
  const mustEnrol = sessions?.code === "second_factor_enrolment_required";
  document.body.classList.toggle("must-enrol", mustEnrol);
  if (sessions && !mustEnrol) throw sessions;
}

/** Take everything off the page, so that none of it comes back with the browser's cache after a logout. */
function hideAll() {
  $("main").hidden = $("#codes").hidden = $("#totp-confirmation").hidden = true;
  for (const place of ["#who", "#codes ul", "#totp-secret"]) $(place).replaceChildren();
  $("#totp-qr").removeAttribute("src");
}

onSubmit($("#logout"), async () => {
  await call("POST", "/auth/logout");
  return go("login");
});
onSubmit($("#logout-all"), async () => {
  await call("POST", "/auth/logout-all");
  return go("login");
});
onSubmit($("#email-verification"), async (body) => {
  await call("POST", "/users/me/email/verification", body);
  await showUser();
});
onSubmit($("#email-change"), async (body) => {
  await freshly("PUT", "/users/me/email", body);
  await showUser();
  $("#email-verification").hidden = false;
  return "A code was sent to the new address. The old one stays until you have typed it.";
});
onSubmit($("#passkey"), async ({ name }) => {
  await freshly("POST", "/users/me/passkeys/options"); // asks for a recent authentication first, if it must
  const added = await call("POST", "/users/me/passkeys", { passkey: await make(), name });
  showCodes(added.recovery_codes); // before anything that can fail: they are shown once
  $("#passkey").reset();
  await showAll();
});
onSubmit($("#totp"), async () => {
  if ($("#totp").dataset.on === "true") {
    await freshly("DELETE", "/users/me/totp");
    return showAll();
  }
  const made = await freshly("POST", "/users/me/totp");
  $("#totp-qr").src = made.qr;
  $("#totp-secret").textContent = made.secret;
  $("#totp-confirmation").hidden = false;
  $("#totp-code").focus();
});
onSubmit($("#totp-confirmation"), async (body) => {
  const { recovery_codes } = await call("POST", "/users/me/totp/confirmation", body);
  showCodes(recovery_codes);
  $("#totp-confirmation").hidden = true;
  await showAll();
});
onSubmit($("#recovery-codes"), async () => {
  const { recovery_codes } = await freshly("POST", "/users/me/recovery-codes");
  showCodes(recovery_codes);
  await showAll();
});
onSubmit($("#password"), async (body) => {
  await freshly("POST", "/users/me/password", body);
  $("#password").reset();
  await showAll();
  return "The password is changed, and all other sessions have ended.";
});
onSubmit($("#deletion"), async (body) => {
  await freshly("POST", "/users/me/delete", body);
  return go("register");
});

addEventListener("pagehide", hideAll);
addEventListener("pageshow", async () => {
  try {
    await showAll();
    $("main").hidden = false;
  } catch (error) {
    if (error.status === 401) go("login");
    else say(sentence(error));
  }
});
