// Starts Swagger UI. In a file, because the page's policy forbids inline scripts.
const docs = new URL("../../docs", document.currentScript.src).pathname; // behind the same prefix as this file
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function showColorScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches); // the class that Swagger UI's style sheet knows
}

dark.addEventListener("change", showColorScheme);
showColorScheme();

// A browser would resolve links in the description against the address of the page, which may end with a slash.
const absoluteLinks = {
  statePlugins: {
    spec: { wrapActions: { updateSpec: (update) => (text) => update(text.replaceAll("](docs/", `](${docs}/`)) } },
  },
};

SwaggerUIBundle({
  url: `${docs}/openapi.json`,
  dom_id: "#swagger-ui",
  validatorUrl: null, // or the description would be sent to another host
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  plugins: [absoluteLinks],
});
