import { useLink } from "./account.js";

useLink(
  "/auth/reset/confirmation",
  (form) => ({ new_password: form.querySelector("#password").value }),
  "The password is set, and all sessions have ended. You can log in now.",
);
