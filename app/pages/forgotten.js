// Ask for the mail with which a forgotten password is replaced. Nothing tells whether the address is known.

import { ask } from "./api.js";
import { $, onSubmit } from "./page.js";

onSubmit($("form"), async ({ email }) => {
  await ask("POST", "/auth/reset", { email });
  return "If an account has confirmed this address, a mail is on its way. Its link works for 30 minutes.";
});
