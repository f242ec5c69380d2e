import { useLink } from "./account.js";

useLink(
  "/users/email/undo",
  () => ({}),
  "The change is undone, and all sessions have ended. Ask for a new password with the restored address.",
);
