// A host as the official bridge makes one; the page gives it `callTool` and the app's document.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

window.show = async (html, given, theme) => {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts");
  frame.style.cssText = "width: 100%; height: 400px; border: 0";
  document.body.append(frame);
  const bridge = new AppBridge(null, { name: "test host", version: "1" }, { serverTools: {} }, { hostContext: { theme } });
  bridge.oncalltool = (params) => window.callTool(params);
  bridge.onsizechange = ({ height }) => { window.appHeight = height; };
  bridge.oninitialized = async () => {
    await bridge.sendToolInput({ arguments: given });
    await bridge.sendToolResult(await window.callTool({ name: "query_metrics", arguments: given }));
  };
  window.setTheme = (next) => bridge.setHostContext({ theme: next });
  window.takeDown = () => bridge.teardownResource({});
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = html;
};
