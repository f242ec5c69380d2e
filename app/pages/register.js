// Register, which also logs in.

import { open } from "./api.js";
import { $, go, onSubmit } from "./page.js";

onSubmit($("form"), async (fields) => {
  await open("/users/registration", fields);
  return go("./");
});
