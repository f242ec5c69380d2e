// Starts Swagger UI. In a file, because the page's policy forbids inline scripts.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function showColorScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches); // the class that Swagger UI's style sheet knows
}

dark.addEventListener("change", showColorScheme);
showColorScheme();

SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // or the description would be sent to another host
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
